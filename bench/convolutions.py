"""Ways to run the convolutions of a stack: network by network, as one grouped convolution, or vmapped.

    python -m bench.convolutions --networks conv2 conv4 conv6 --device cpu

A row per network, way, size of the stack and precision in results/bench/convolutions_DEVICE.csv: milliseconds per
network of a forward and backward pass of the convolutional part on batches of 60, medians of interleaved rounds. On a
GPU a pass is recorded, as training's steps are, and the networks of the first way share one stream, or several. The
first way is the one that `lt_utils.networks` takes.
"""

import argparse
import statistics
from collections.abc import Callable, Iterator
from functools import partial

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.__main__ import place_of
from bench.common import formats, keep
from lt_utils import speed, store
from lt_utils.lottery import default_device
from lt_utils.networks import CIFAR, LANES, NETWORKS, Layer, features, forked, rectified
from lt_utils.notebook import results_folder
from lt_utils.recording import ORDINARY, cuda_graph
from lt_utils.trainees import DTYPES

REPEATS, SECONDS, BATCH = 3, 0.5, 60
Way = Callable[[tuple[Layer, ...], list[Tensor], list[Tensor], Tensor], Tensor]


def grouped(layers: tuple[Layer, ...], weights: list[Tensor], biases: list[Tensor], images: Tensor) -> Tensor:
    """A convolution with as many groups as networks, their channels side by side."""
    stack = len(images)
    x = images.transpose(0, 1).flatten(1, 2).contiguous(memory_format=torch.channels_last)  # (B, M * channels, 32, 32)
    for layer, weight, bias in zip(layers, weights, biases):
        x = rectified(layer, F.conv2d(x, weight.flatten(0, 1), bias.flatten(), padding=1, groups=stack))
    return x.unflatten(1, (stack, -1)).transpose(0, 1).permute(0, 1, 3, 4, 2).flatten(2)


def vmapped(layers: tuple[Layer, ...], weights: list[Tensor], biases: list[Tensor], images: Tensor) -> Tensor:
    """`torch.vmap` over one network."""

    def one(weights: list[Tensor], biases: list[Tensor], x: Tensor) -> Tensor:
        for layer, weight, bias in zip(layers, weights, biases):
            x = rectified(layer, F.conv2d(x, weight, bias, padding=1))
        return x.permute(0, 2, 3, 1).flatten(1)

    return torch.vmap(one)(weights, biases, images)


WAYS: dict[str, Way] = {"one by one": features, "grouped": grouped, "vmapped": vmapped}


def ways(device: str) -> dict[str, Way]:
    """What is compared on a device."""
    others = (1, 2, 8) if place_of(device) == "cuda" else ()
    return WAYS | {f"one by one, streams: {n} instead of {LANES}": partial(features, lanes=n) for n in others}


def inputs(network: str, stack: int, precision: str, device: str) -> tuple:
    """Layers, and random weights, biases and images for them."""
    layers = tuple(layer for layer in NETWORKS[network].layers if layer.role == "conv")
    options = {"device": device, "dtype": DTYPES[precision]}
    weights = [(layer.glorot_std * torch.randn(stack, *layer.shape, **options)).requires_grad_() for layer in layers]
    biases = [torch.zeros(stack, layer.outputs, **options).requires_grad_() for layer in layers]
    return layers, weights, biases, torch.rand(stack, BATCH, *CIFAR, **options)


def passes(way: Way, given: tuple) -> Iterator[int]:
    """Forward and backward passes without end; on a GPU one that is recorded and replayed."""
    _, weights, biases, images = given
    rows = torch.zeros(1, device=images.device)  # a recording has some, which nothing here depends on

    def once(_: Tensor) -> None:
        for leaf in (*weights, *biases):
            leaf.grad = None
        way(*given).sum().backward()

    if images.is_cuda:
        aside = torch.cuda.Stream(images.device)
        with forked([aside]), torch.cuda.stream(aside):
            for _ in range(ORDINARY):
                once(rows)
        once = cuda_graph(once, rows, [])
    while True:
        once(rows)
        yield len(images)


def compare(network: str, stack: int, precision: str, device: str) -> list[dict[str, object]]:
    """Milliseconds per network of every way."""
    loops = {name: passes(way, inputs(network, stack, precision, device)) for name, way in ways(device).items()}
    for loop in loops.values():
        next(loop)
    times: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(REPEATS):
        for name, loop in loops.items():
            times[name].append(1000 * speed.measure(loop, device, SECONDS))
    common = {"network": network, "precision": precision, "stack": stack}
    return [common | {"way": name, "ms per network": statistics.median(values)} for name, values in times.items()]


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["conv2", "conv4", "conv6"], choices=list(NETWORKS)[1:])
    parser.add_argument("--device", default=default_device())
    options = parser.parse_args()
    place, rows = place_of(options.device), []
    for network in options.networks:
        for precision in formats():
            for stack in {"cpu": (1, 4, 16), "cuda": (1, 16, 64)}[place]:
                found = compare(network, stack, precision, options.device)
                rows += found
                print(pd.DataFrame(found).round(2).to_string(index=False, header=False), flush=True)
    machine = f"{store.device_name(options.device)}, torch {torch.__version__}"
    found = pd.DataFrame(rows).round(3).assign(machine=machine)
    by = ["machine", "network", "precision", "stack", "way"]
    keep(results_folder("bench") / f"convolutions_{place}.csv", found, by)


if __name__ == "__main__":
    main()
