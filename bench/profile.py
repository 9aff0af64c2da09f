"""Where the time of a network-step goes, by PyTorch's profiler.

    python -m bench.profile --networks fc conv2 --kinds learned --device cpu

A row per network, kind of training and part in results/bench/profile_DEVICE.csv, in the fast precision and the largest
stack of `make bench` of up to 64: its share of the step, and that of the milliseconds that a network-step takes
unobserved. On a CPU a part is the time in its tensor operations, and `Python` what remains; on a GPU it is that of its
kernels, launched one by one, since the operations of a recording are not told apart, and `Python` is when none runs.
"""

import time
from collections.abc import Iterator
from dataclasses import replace

import pandas as pd
from torch.autograd import DeviceType
from torch.profiler import profile

from bench.__main__ import SECONDS, options, place_of, run_of, stacks
from bench.common import formats, keep, machine_name
from lt_utils import speed
from lt_utils.notebook import results_folder

PARTS = {  # by what the name of an operation contains; the first part that fits
    "matrix products": ("mm", "convolution", "conv2d"),
    "random numbers": ("uniform_", "randperm", "random_"),
    "optimiser": ("_fused_adam", "_fused_sgd"),
    "batches": ("index",),
    "activations and loss": ("clamp_min", "threshold", "relu", "pool", "softmax", "nll_loss"),
    "masks and copies": ("aten::",),
}
REST = "Python"
LARGEST = 64  # networks in a stack; a larger one gains little


def part_of(operation: str) -> str:
    """The part that an operation belongs to, by its name."""
    return next((part for part, names in PARTS.items() if any(name in operation for name in names)), REST)


def shares(loop: Iterator[int], device: str) -> pd.Series:
    """The share of each part in the steps of a loop; they sum to 1."""
    cuda = device.startswith("cuda")
    with profile(acc_events=True) as seen:
        began = time.perf_counter()
        speed.measure(loop, device, 3 * SECONDS)
        elapsed = 1e6 * (time.perf_counter() - began)
    spent = dict.fromkeys(PARTS, 0.0)
    for event in seen.key_averages():
        if event.device_type == DeviceType.CPU and event.key.startswith("aten::"):  # a kernel counts with who called it
            spent[part_of(event.key)] += event.self_device_time_total if cuda else event.self_cpu_time_total
    return pd.Series(spent | {REST: elapsed - sum(spent.values())}) / elapsed


def where(network: str, kind: str, device: str) -> pd.DataFrame:
    """The parts of one network and kind of training."""
    run = replace(run_of(network, kind), precision=formats()[-1])
    stack = max(size for size in stacks(run, device) if size <= LARGEST)
    loop = speed.stepper(run, stack, device, recorded=False)
    next(loop)
    ms = 1000 * min(speed.measure(loop, device, SECONDS) for _ in range(3))
    found = shares(loop, device)
    common = {"network": network, "kind": kind, "precision": run.precision, "stack": stack}
    rows = [common | {"part": p, "share": s, "ms per network-step": ms * s} for p, s in found.items()]
    return pd.DataFrame(rows)


def main() -> None:
    """Profile, print, and write."""
    given = options(__doc__)
    for network in given.networks:
        for kind in given.kinds:
            found = where(network, kind, given.device).round(4).assign(machine=machine_name(given.device))
            print(found.drop(columns="machine").to_string(index=False), flush=True)
            keep(
                results_folder("bench") / f"profile_{place_of(given.device)}.csv",
                found,
                ["machine", "network", "kind", "part"],
            )


if __name__ == "__main__":
    main()
