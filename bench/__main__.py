"""Time per network-step of the stacked trainer beside two ordinary PyTorch loops, in one run, interleaved.

A network-step is one optimiser step of one network with everything that it needs: batch selection, forward, backward,
masking, the optimiser. `train` is masked training with batches of 60, `learned` a learned supermask with batches of
250. The ordinary loops (bench/baselines.py) run in a process of their own.

    python -m bench --networks fc conv2 --kinds train --device cpu
"""

import argparse
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace

import pandas as pd
import torch

from bench.common import formats, keep, machine_name
from lt_utils import data, speed
from lt_utils.lottery import default_device
from lt_utils.networks import NETWORKS
from lt_utils.notebook import results_folder
from lt_utils.profiles import fast_precision
from lt_utils.recording import ORDINARY
from lt_utils.runs import Run
from lt_utils.trainees import DTYPES
from lt_utils.training import evaluate

REPEATS = {"cpu": 5, "cuda": 3}
SECONDS = {"cpu": 0.6, "cuda": 0.2}  # of one measurement: a GPU does hundreds of steps in that time
LONG = 10_000  # milliseconds; so long a step is measured once
STACKS = {"cpu": (1, 4, 16, 64, 256), "cuda": (1, 4, 16, 64, 256, speed.GPU_STACK)}  # as far as the memory goes
LAUNCH_BOUND = 1  # networks in a stack, up to which a GPU is measured without a recording, too
BATCH = {"train": 60, "learned": 250}
WEIGHT_ACCESSES = {"train": 13, "learned": 16}  # see `traffic`
ACTIVATION_ACCESSES = 6


class Baselines:
    """The ordinary loops, in their process."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "bench.baselines"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=data.ROOT
        )

    def measure(self, *words: object) -> float:
        """Milliseconds per step of a loop."""
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


def rate(action: Callable[[], object], amount: float, device: str) -> float:
    """`amount` per second of the fastest of several calls."""

    def endless() -> Iterator[int]:
        while True:
            action()
            yield 1

    loop = endless()
    next(loop)
    return amount / min(speed.measure(loop, device, 0.05) for _ in range(12))


def machine_rates(device: str) -> dict[str, float]:
    """Measured matrix products per second by precision, FLOP/s, and memory copied, bytes/s. The products are those of
    large matrices or of a large convolution, whichever are faster: on a CPU two libraries do them."""
    n = 2048 if device == "cpu" else 8192
    rates = {}
    for name in formats():
        a, b = (torch.rand(n, n, device=device).to(DTYPES[name]) for _ in range(2))
        x, w = (
            torch.rand(shape, device=device).to(DTYPES[name]) for shape in ((n // 128, 256, 32, 32), (256, 256, 3, 3))
        )
        rates[name] = max(
            rate(lambda a=a, b=b: torch.mm(a, b), 2 * n**3, device),
            rate(lambda x=x, w=w: torch.conv2d(x, w, padding=1), 2 * w.numel() * x[:, 0].numel(), device),
        )
    x = torch.rand(64 * 2**20, device=device)
    y = torch.empty_like(x)
    rates["bytes"] = rate(lambda: y.copy_(x), 2 * 4 * x.numel(), device)
    return rates


def traffic(run: Run) -> float:
    """Bytes that a network-step must move if nothing stays in a cache. Per weight, training: forward and backward read
    it, the gradient is written, masked (2 more), and Adam reads w, g, m, v and writes w, m, v. A learned mask: score,
    weight and random number are read and the masked weight written, read twice; its gradient is written and read with
    weight and probability to make the score's, which SGD reads with score and momentum, and writes both. Per
    activation: written and read forward; read again, and its gradient written and read twice, backward."""
    network = NETWORKS[run.network]
    size = 2 if run.precision == "bf16" else 4
    return (
        4 * WEIGHT_ACCESSES[run.kind] * network.weights + size * ACTIVATION_ACCESSES * run.batch * network.activations
    )


def peak_memory(run: Run, networks: int) -> float:
    """MB that a process holds at most while it trains a stack on a CPU, PyTorch and the data set included; read in a
    process of its own."""
    code = f"""
import pathlib
from lt_utils import speed
from lt_utils.runs import Run
loop = speed.stepper(Run(**{run.describe()}), {networks}, "cpu")
next(loop)
pathlib.Path("/proc/self/clear_refs").write_text("5")  # forget what loading took
next(loop)
lines = pathlib.Path("/proc/self/status").read_text().splitlines()
print(next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1e6)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=data.ROOT)
    return float(done.stdout) if not done.returncode else float("nan")


def with_shares(table: pd.DataFrame, rates: dict[str, float]) -> pd.DataFrame:
    """The table with the shares of the machine's rates, and the least that a network-step can take there."""
    runs = [
        Run(
            network=row.network,
            kind=row.kind,
            batch=BATCH[row.kind],
            precision="bf16" if "bf16" in row.loop else "fp32",
        )
        for row in table.itertuples()
    ]
    ms = table["ms per network-step"]
    arithmetic = pd.Series([1e3 * speed.flops(NETWORKS[r.network], r.batch) / rates[r.precision] for r in runs])
    memory = pd.Series([1e3 * traffic(r) / rates["bytes"] for r in runs])
    return table.assign(
        **{
            "share of FLOP/s": arithmetic / ms,
            "share of bytes/s": memory / ms,
            "floor ms": pd.concat([arithmetic, memory], axis=1).max(axis=1),
        }
    )


def place_of(device: str) -> str:
    """cpu or cuda."""
    return device.split(":", maxsplit=1)[0]


def run_of(network: str, kind: str) -> Run:
    """What is measured of a network and kind of training."""
    own = NETWORKS[network]
    rate = own.mask_rates[False] if kind == "learned" else own.learning_rate
    return Run(network=network, kind=kind, batch=BATCH[kind], learning_rate=rate)


def stacks(run: Run, device: str) -> list[int]:
    """The sizes of stack that are measured, as far as they fit the memory that is free."""
    return [size for size in STACKS[place_of(device)] if size <= speed.stack_limit(run, device)]


def options(description: str) -> argparse.Namespace:
    """Networks, kinds of training and device from the command line."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--kinds", nargs="+", default=list(BATCH), choices=list(BATCH))
    parser.add_argument("--device", default=default_device())
    return parser.parse_args()


def bench(network: str, kind: str, device: str, baselines: Baselines) -> pd.DataFrame:
    """The table of one network and kind of training."""
    run, place = run_of(network, kind), place_of(device)
    loops, numbers, runs, memory = {}, {}, {}, {}
    for precision in formats():
        data.load(NETWORKS[network].dataset, device, DTYPES[precision])  # counts with no stack's memory
        for number in stacks(run, device):
            without_graph = place == "cuda" and number <= LAUNCH_BOUND
            for graph in ("", ", no CUDA graph")[: 1 + without_graph]:
                name = f"stack of {number}, {precision}{graph}"
                runs[name], numbers[name] = replace(run, precision=precision), number
                loops[name] = speed.stepper(runs[name], number, device, recorded=not graph)
                if place == "cuda":
                    torch.cuda.reset_peak_memory_stats(device)
                    before = torch.cuda.memory_allocated(device)
                for _ in range(ORDINARY + 1 if place == "cuda" else 1):  # until the step is recorded
                    next(loops[name])
                if place == "cuda":
                    memory[name] = (torch.cuda.max_memory_allocated(device) - before) / 1e6
    times = {"idiomatic loop": [], "in-memory loop": [], **{name: [] for name in loops}}
    for repeat in range(REPEATS[place]):
        for name in ("idiomatic", "in-memory"):
            times[f"{name} loop"].append(baselines.measure(network, kind, name, device, SECONDS[place]))
        for name, loop in loops.items():
            if not repeat or times[name][0] * numbers[name] < LONG:
                times[name].append(1000 * speed.measure(loop, device, SECONDS[place]))
    rows, largest = [], {[name for name in loops if name.endswith(f)][-1] for f in formats()}
    if place == "cpu":
        memory = {name: peak_memory(runs[name], numbers[name]) for name in largest}
    for name, values in times.items():
        ms = statistics.median(values)
        rows.append(
            {
                "network": network,
                "kind": kind,
                "loop": name,
                "ms per network-step": ms,
                "x idiomatic": statistics.median(times["idiomatic loop"]) / ms,
                "x in-memory": statistics.median(times["in-memory loop"]) / ms,
                "images/s": 1e3 * run.batch / ms,
                "process MB": memory.get(name),
            }
        )
    return pd.DataFrame(rows)


def evaluation_cost(network: str, device: str) -> float:
    """Milliseconds of one validation (5,000 images) of one network, in the fast precision."""
    run = Run(network=network, precision=fast_precision())
    _, trainee = speed.sample(run, 1, device)
    split = data.load(NETWORKS[network].dataset, device, DTYPES[run.precision]).validation

    def validations() -> Iterator[int]:
        while True:
            with torch.no_grad():
                evaluate(network, *trainee.parameters(trainee.trained), split)
            yield 1

    loop = validations()
    next(loop)
    return 1000 * statistics.median(speed.measure(loop, device, SECONDS[place_of(device)]) for _ in range(3))


def main() -> None:
    """Measure, print, and write results/bench/DEVICE.csv and DEVICE_machine.csv."""
    given = options(__doc__)
    for name in ("mnist", "cifar10"):
        data.arrays(name)
    device, baselines = given.device, Baselines()
    machine = machine_name(device)
    print(f"{machine}; medians of {REPEATS[place_of(device)]} interleaved rounds")
    parts, extra, rates = [], [], machine_rates(device)
    for network in given.networks:
        for kind in given.kinds:
            parts.append(bench(network, kind, device, baselines))
            rates = {name: max(value, rates[name]) for name, value in machine_rates(device).items()}  # its best moment
            print(f"\n{with_shares(parts[-1], rates).round(3).to_string(index=False)}", flush=True)
        extra.append({"quantity": f"{network} validation ms", "value": evaluation_cost(network, device)})
    extra += [{"quantity": f"{name} G/s", "value": value / 1e9} for name, value in rates.items()]
    print(f"\n{pd.DataFrame(extra).round(1).to_string(index=False)}")
    where, place = results_folder("bench"), place_of(device)
    every = with_shares(pd.concat(parts, ignore_index=True), rates).assign(machine=machine)
    keep(where / f"{place}.csv", every.round(4), ["machine", "network", "kind"])
    keep(where / f"{place}_machine.csv", pd.DataFrame(extra).assign(machine=machine), ["machine", "quantity"])


if __name__ == "__main__":
    main()
