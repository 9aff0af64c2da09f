"""Time per network-step of the stacked trainer beside two ordinary PyTorch loops, in one run, interleaved.

A network-step is one optimiser step of one network with everything that it needs: batch selection, forward, backward,
masking the gradient, Adam. All loops train the masked FC network on MNIST with batches of 60.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader

from lt_utils import data, store
from lt_utils.lottery import starting_point
from lt_utils.networks import NETWORKS
from lt_utils.profiles import fast_precision
from lt_utils.runs import Run
from lt_utils.trainees import DTYPES, Start, Weights
from lt_utils.training import batches, step

BATCH, REPEATS, SECONDS = 60, 7, 1.0
STACKS = (1, 4, 8, 16, 32)
Loop = Iterator[int]  # each `next` does one step of that many networks


def masked(run: Run) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """A start at 20 % of the weights, as after seven of the paper's rounds."""
    weights, _ = starting_point(run)
    masks = [torch.rand(w.shape, generator=torch.Generator().manual_seed(run.seed)) < 0.2 for w in weights]
    return [w * m for w, m in zip(weights, masks)], masks


def stacked(networks: int, precision: str) -> Loop:
    """This project's loop."""
    runs = [Run(seed=i, learning_rate=1.2e-3, precision=precision) for i in range(networks)]
    weights, masks = ([torch.stack(layer) for layer in zip(*part)] for part in zip(*(masked(run) for run in runs)))
    trainee, images = Weights(runs, Start(weights, masks)), data.load("mnist", "cpu", DTYPES[precision]).train
    for epoch in range(1_000_000):
        order = batches(runs, epoch, len(images.labels), torch.device("cpu"))
        for rows in order[:, : order.shape[1] // BATCH * BATCH].split(BATCH, dim=1):
            step(runs[0], trainee, images, rows)
            yield networks


def ordinary(feed: Iterator[tuple[torch.Tensor, torch.Tensor]]) -> Loop:
    """The loop that anybody would write, fed with batches."""
    weights, masks = masked(Run())
    module = nn.Sequential(
        nn.Flatten(), nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)
    )
    linear = [layer for layer in module if isinstance(layer, nn.Linear)]
    for layer, w in zip(linear, weights):
        layer.weight.data = w
    optimiser = torch.optim.Adam(module.parameters(), lr=1.2e-3)
    for images, labels in feed:
        optimiser.zero_grad()
        F.cross_entropy(module(images), labels).backward()
        for layer, mask in zip(linear, masks):
            layer.weight.grad.mul_(mask)
        optimiser.step()
        yield 1


def idiomatic_feed() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """torchvision's MNIST, ToTensor and a DataLoader."""
    from torchvision import datasets, transforms

    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "MNIST" / "raw"
        raw.mkdir(parents=True)
        for part, name in (("train", "train"), ("test", "t10k")):
            for what, kind in (("images", "images-idx3"), ("labels", "labels-idx1")):
                array = data.arrays("mnist")[f"{part}_{what}"]
                header = np.array([0x800 + array.ndim, *array.shape], ">i4").tobytes()
                (raw / f"{name}-{kind}-ubyte").write_bytes(header + array.tobytes())
        dataset = datasets.MNIST(folder, transform=transforms.ToTensor())
    loader = DataLoader(dataset, batch_size=BATCH, shuffle=True, drop_last=True)
    while True:
        yield from loader


def memory_feed() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Tensors in memory, indexed by a permutation."""
    train = data.load("mnist").train
    while True:
        for rows in torch.randperm(len(train.labels)).split(BATCH)[:-1]:
            yield train.images[rows], train.labels[rows]


def timed(loop: Loop, seconds: float = SECONDS) -> float:
    """Milliseconds per network-step over about `seconds`."""
    steps, began = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds:
        steps += next(loop)
    return 1000 * elapsed / steps


def rate(action: Callable[[], object], amount: float) -> float:
    """`amount` per second of the fastest of several calls."""
    times = []
    for _ in range(12):
        began = time.perf_counter()
        action()
        times.append(time.perf_counter() - began)
    return amount / min(times)


def floor() -> dict[str, float]:
    """What a network-step must cost at least on this machine: its arithmetic, and its memory traffic."""
    network = NETWORKS["fc"]
    first, every = 784 * 300, network.weights
    flops = 2 * BATCH * (3 * every - first)  # forward, gradient of the weights, gradient of all inputs but the images
    accesses = 2 + 1 + 3 + 7  # forward and backward read w; write g; mask g; Adam reads w, g, m, v and writes w, m, v
    n = 2048
    a, b, c = torch.rand(n, n), torch.rand(n, n), torch.empty(n, n)
    x = torch.rand(64 * 2**20)
    y = torch.empty_like(x)
    flop_rate = rate(lambda: torch.mm(a, b, out=c), 2 * n**3)
    byte_rate = rate(lambda: y.copy_(x), 2 * 4 * x.numel())
    return {
        "MFLOP": flops / 1e6,
        "GFLOP/s": flop_rate / 1e9,
        "arithmetic ms": 1e3 * flops / flop_rate,
        "MB": 4 * every * accesses / 1e6,
        "GB/s": byte_rate / 1e9,
        "memory ms": 4e3 * every * accesses / byte_rate,
    }


def main() -> None:
    """Measure, print, and write results/bench/fc_cpu.csv."""
    loops = {"idiomatic loop": ordinary(idiomatic_feed()), "in-memory loop": ordinary(memory_feed())}
    formats = ("fp32", "bf16") if fast_precision() == "bf16" else ("fp32",)
    loops |= {f"stack of {n}, {precision}": stacked(n, precision) for precision in formats for n in STACKS}
    for loop in loops.values():
        timed(loop, 0.3)  # warm up
    times = {name: [] for name in loops}
    for _, name in zip(range(REPEATS * len(loops)), cycle(loops)):
        times[name].append(timed(loops[name]))
    medians = pd.Series({name: statistics.median(values) for name, values in times.items()})
    least = floor()
    table = pd.DataFrame(
        {
            "ms per network-step": medians,
            "x idiomatic": medians["idiomatic loop"] / medians,
            "x in-memory": medians["in-memory loop"] / medians,
            "share of arithmetic floor": least["arithmetic ms"] / medians,
            "images/s": 1e3 * BATCH / medians,
        }
    ).rename_axis("loop")
    machine = f"{store.device_name('cpu')}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    print(f"FC on MNIST, batch {BATCH}, masked, CPU: {machine}; medians of {REPEATS} interleaved rounds\n")
    print(table.round(3).to_string())
    print("\nfloor of a network-step: " + ", ".join(f"{value:.3g} {unit}" for unit, value in least.items()))
    out = Path(os.environ.get("LT_RESULTS") or data.ROOT / "results") / "bench"
    out.mkdir(parents=True, exist_ok=True)
    table.assign(machine=machine).to_csv(out / "fc_cpu.csv", float_format="%.4g", lineterminator="\n")
    pd.Series(least).rename_axis("quantity").rename("value").to_csv(out / "fc_cpu_floor.csv", float_format="%.4g")


if __name__ == "__main__":
    main()
