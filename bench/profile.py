"""Where the time of a network-step goes.

    python -m bench.profile --networks fc conv2 --kinds learned --device cpu

A row per network, kind of training and part in results/bench/profile_DEVICE.csv, in the fast precision and the largest
stack of `make bench` of up to 64: its share of a network-step, and that of the milliseconds that one takes unobserved.
On a CPU a part is the time in its tensor operations, and `Python` what remains. On a GPU it is that of its kernels, by
PyTorch's profiler, launched one by one, since the operations of a recording are not told apart, and `Python` is when
none runs. On a CPU that profiler would mislead: under it a step takes up to four times as long (learned masks of FC),
since what it notes down scatters over the memory that a step has freed, and large tensors are faulted in anew.
"""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pandas as pd
from torch.autograd import DeviceType
from torch.profiler import profile
from torch.utils._python_dispatch import TorchDispatchMode

from bench.__main__ import SECONDS, options, place_of, run_of, stacks
from bench.common import formats, keep, machine_name
from lt_utils import speed
from lt_utils.notebook import results_folder

PARTS = {  # by what the name of an operation contains; the first part that fits
    "matrix products": ("mm", "convolution", "conv2d"),
    "random numbers": ("uniform_", "rand"),
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


class _Timed(TorchDispatchMode):
    """Seconds in the tensor operations done under it, by part."""

    def __init__(self) -> None:
        super().__init__()
        self.spent = dict.fromkeys((*PARTS, REST), 0.0)

    def __torch_dispatch__(self, operation: Any, types: Any, given: tuple = (), named: dict | None = None) -> Any:
        began = time.perf_counter()
        done = operation(*given, **(named or {}))
        self.spent[part_of(operation.name())] += time.perf_counter() - began
        return done


def spent_on_cpu(loop: Iterator[int]) -> dict[str, float]:
    """Seconds of a network-step in each part."""
    steps, end = 0, time.perf_counter() + 3 * SECONDS["cpu"]
    with _Timed() as timed:
        while not steps or time.perf_counter() < end:
            steps += next(loop)
    return {part: timed.spent[part] / steps for part in PARTS}


def spent_on_gpu(loop: Iterator[int], device: str) -> dict[str, float]:
    """The same of kernels."""
    steps = 0

    def counted() -> Iterator[int]:
        nonlocal steps
        for networks in loop:
            steps += networks
            yield networks

    with profile(acc_events=True) as seen:
        speed.measure(counted(), device, 3 * SECONDS["cuda"])
    spent = dict.fromkeys(PARTS, 0.0)
    for event in seen.key_averages():
        if event.device_type == DeviceType.CPU and event.key.startswith("aten::"):  # a kernel counts with who called it
            spent[part_of(event.key)] += 1e-6 * event.self_device_time_total / steps
    return spent


def where(network: str, kind: str, device: str) -> pd.DataFrame:
    """The parts of one network and kind of training."""
    run = replace(run_of(network, kind), precision=formats()[-1])
    stack = max(size for size in stacks(run, device) if size <= LARGEST)
    loop = speed.stepper(run, stack, device, recorded=False)
    next(loop)
    ms = 1000 * min(speed.measure(loop, device, SECONDS[place_of(device)]) for _ in range(3))
    spent = spent_on_gpu(loop, device) if device.startswith("cuda") else spent_on_cpu(loop)
    found = {part: 1000 * seconds for part, seconds in spent.items()}
    found[REST] = max(0.0, ms - sum(found.values()))
    shares = {part: own / sum(found.values()) for part, own in found.items()}
    common = {"network": network, "kind": kind, "precision": run.precision, "stack": stack}
    rows = [common | {"part": p, "share": share, "ms per network-step": ms * share} for p, share in shares.items()]
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
