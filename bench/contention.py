"""What another process that keeps a core busy costs on a CPU: on all threads, by how they wait for each other, and on
one.

    python -m bench.contention --networks fc conv2

By default OpenMP's threads wait by spinning, also for one that the system has set aside for the other process. A row
per network, kind of training, way of `WAYS` and number of busy processes in results/bench/contention.csv: milliseconds
of a network-step, and as a multiple of the default's beside no other process. OpenMP reads how to wait when it is
loaded, so each way has a process of its own.
"""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pandas as pd

from bench.__main__ import SECONDS, options, place_of, run_of, stacks
from bench.common import formats, keep, machine_name
from lt_utils import speed
from lt_utils.notebook import results_folder

WAYS = {
    "default": {},
    "passive": {"OMP_WAIT_POLICY": "passive"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
BUSY = (0, 1)  # other processes
LARGEST = 16  # networks in a stack
REPEATS = 3


@contextmanager
def busy(number: int) -> Iterator[None]:
    """So many processes that do nothing but keep a core busy."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def milliseconds(network: str, kind: str, device: str) -> float:
    """Of a network-step in this process, as its OpenMP waits."""
    run = replace(run_of(network, kind), precision=formats()[-1])
    loop = speed.stepper(run, max(size for size in stacks(run, device) if size <= LARGEST), device)
    next(loop)
    return 1000 * min(speed.measure(loop, device, SECONDS[place_of(device)]) for _ in range(2))


def measure(way: str, pairs: list[tuple[str, str]], device: str) -> list[float]:
    """The milliseconds of each network and kind, in a process of its own."""
    call = f"[milliseconds(*pair, {device!r}) for pair in {pairs}]"
    code = f"import json; from bench.contention import milliseconds; print(json.dumps({call}))"
    given = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    done = subprocess.run([sys.executable, "-c", code], env=given | WAYS[way], check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout.splitlines()[-1])


def table(pairs: list[tuple[str, str]], device: str, repeats: int = REPEATS) -> pd.DataFrame:
    """The medians of `repeats` measurements, interleaved."""
    times: dict[tuple, list[float]] = {}
    for _ in range(repeats):
        for number in BUSY:
            for way in WAYS:
                with busy(number):
                    found = measure(way, pairs, device)
                for pair, ms in zip(pairs, found):
                    times.setdefault((*pair, way, number), []).append(ms)
    columns = ["network", "kind", "waiting", "busy processes"]
    rows = [(*key, statistics.median(ms)) for key, ms in sorted(times.items())]
    found = pd.DataFrame(rows, columns=[*columns, "ms per network-step"])
    alone = [statistics.median(times[(*pair, "default", 0)]) for pair in zip(found["network"], found["kind"])]
    return found.assign(**{"x default alone": found["ms per network-step"] / alone})


def main() -> None:
    """Measure, print, and write."""
    given = options(__doc__)
    found = table([(network, kind) for network in given.networks for kind in given.kinds], given.device)
    found = found.assign(machine=machine_name(given.device)).round(3)
    print(found.drop(columns="machine").to_string(index=False))
    by = ["machine", "network", "kind", "waiting", "busy processes"]
    keep(results_folder("bench") / "contention.csv", found, by)


if __name__ == "__main__":
    main()
