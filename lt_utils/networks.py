"""The four networks of the paper as data, their start weights from a seed, and the forward pass of a stack.

A *stack* is M networks of one architecture trained together. Every tensor of a stack has the network axis first:
dense weights are (M, outputs, inputs), convolution weights (M, outputs, inputs, 3, 3), biases (M, outputs).
"""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lt_utils import cpu
from lt_utils.criteria import prune_count
from lt_utils.randomness import generator

LANES = 4  # CUDA streams on which networks are computed side by side; more gain nothing (measured)
NARROW = 64  # outputs; MKL multiplies narrower matrices in an order of its own if a stack has one network: see below
TRUNCATED_STD = 0.87962566103423978  # standard deviation of a unit normal cut at two standard deviations


@dataclass(frozen=True)
class Layer:
    """One layer with weights. `role` (conv, dense or output) decides how fast it is pruned."""

    role: str
    inputs: int
    outputs: int
    pool: bool = False  # 2x2 max-pool after the ReLU

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weights, as in `torch.nn.Linear` and `torch.nn.Conv2d`."""
        return (self.outputs, self.inputs, 3, 3) if self.role == "conv" else (self.outputs, self.inputs)

    @property
    def glorot_std(self) -> float:
        """Standard deviation of the Glorot normal start, sqrt(2 / (fan_in + fan_out))."""
        receptive_field = 9 if self.role == "conv" else 1
        return math.sqrt(2 / (receptive_field * (self.inputs + self.outputs)))


@dataclass(frozen=True)
class Network:
    """An architecture and the paper's hyper-parameters for it (Zhou et al. 2019; Frankle and Carbin 2019, figure 2)."""

    name: str
    dataset: str
    layers: tuple[Layer, ...]
    learning_rate: float  # of Adam
    iterations: int  # of one full-length training
    kept: dict[str, float]  # fraction of the weights kept per pruning round, by the layer's role
    mask_rates: tuple[float, float]  # SGD's, of masks learned without DWR and with: the authors' (FC), or searched for

    @property
    def pixels(self) -> tuple[int, ...]:
        """Pixels of each layer's outputs, before pooling: 1 of a dense layer's."""
        side, pixels = 32, []
        for layer in self.layers:
            pixels.append(side**2 if layer.role == "conv" else 1)
            side //= 2 if layer.pool else 1
        return tuple(pixels)

    @property
    def activations(self) -> int:
        """Outputs of all layers for one image, before pooling."""
        return sum(layer.outputs * pixels for layer, pixels in zip(self.layers, self.pixels))

    @property
    def weights(self) -> int:
        """Number of weights, biases aside."""
        return sum(math.prod(layer.shape) for layer in self.layers)

    def prune_counts(self, left: list[int], power: int) -> list[int]:
        """How many weights so many of the paper's rounds at once prune from each layer, of those `left` in it."""
        return [prune_count(self.kept[layer.role], n, power) for layer, n in zip(self.layers, left)]


def _layers(channels: tuple[int, ...], image: tuple[int, int, int], dense: tuple[int, ...]) -> tuple[Layer, ...]:
    """Pairs of 3x3 convolutions, each pair followed by a 2x2 max-pool; then the dense layers."""
    depth, height, width = image
    layers = []
    for outputs in channels:
        layers += [Layer("conv", depth, outputs), Layer("conv", outputs, outputs, pool=True)]
        depth, height, width = outputs, height // 2, width // 2
    inputs = depth * height * width
    for outputs in dense:
        layers.append(Layer("output" if outputs == dense[-1] else "dense", inputs, outputs))
        inputs = outputs
    return tuple(layers)


CIFAR, CIFAR_DENSE = (3, 32, 32), (256, 256, 10)
_FC, _CONV2, _CONV4, _CONV6 = (
    _layers((), (1, 28, 28), (300, 100, 10)),
    *(_layers(channels, CIFAR, CIFAR_DENSE) for channels in ((64,), (64, 128), (64, 128, 256))),
)
NETWORKS = {
    network.name: network
    for network in (
        Network("fc", "mnist", _FC, 1.2e-3, 50_380, {"dense": 0.8, "output": 0.9}, (100.0, 100.0)),
        Network("conv2", "cifar10", _CONV2, 2e-4, 20_250, {"conv": 0.9, "dense": 0.8, "output": 0.9}, (300.0, 300.0)),
        Network("conv4", "cifar10", _CONV4, 3e-4, 25_500, {"conv": 0.9, "dense": 0.8, "output": 0.9}, (300.0, 300.0)),
        Network("conv6", "cifar10", _CONV6, 3e-4, 30_000, {"conv": 0.85, "dense": 0.8, "output": 0.9}, (1000.0, 300.0)),
    )
}


def title(network: str, *words: str) -> str:
    """A network's name, and words about it, as figures write them."""
    name = network.upper() if network == "fc" else network.capitalize()
    return ", ".join([name, *filter(None, words)])


def draw(layer: Layer, source: torch.Generator) -> Tensor:
    """Glorot normal weights, truncated at two standard deviations as Keras does it: the variance is that of the
    untruncated normal, 2 / (fan_in + fan_out). Shape `layer.shape`, on the CPU."""
    std = layer.glorot_std / TRUNCATED_STD
    return torch.nn.init.trunc_normal_(torch.empty(layer.shape), std=std, a=-2 * std, b=2 * std, generator=source)


@cache
def initial_weights(network: str, seed: int) -> tuple[Tensor, ...]:
    """The start weights of a seed, a CPU tensor per layer, the same bits whatever the device. Do not write to them."""
    layers = NETWORKS[network].layers
    return tuple(draw(layer, generator(seed, "initial weights", i)) for i, layer in enumerate(layers))


@cache
def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bf16 in hardware."""
    return cpu.has("avx512_bf16", "amx_bf16")


def _multiplicable(*tensors: Tensor) -> list[Tensor]:
    """Tensors as the device multiplies them fast: bf16 without the hardware for it as fp32, which holds the numbers and
    their products exactly. PyTorch's emulation gives the same but for the order of its sums, and takes far longer."""
    emulated = tensors[0].dtype == torch.bfloat16 and tensors[0].device.type == "cpu" and not cpu_has_bf16()
    return [t.float() if emulated else t for t in tensors]


class _StackedLinear(torch.autograd.Function):
    """x @ weight.T + bias per network. Its own backward, because autograd's lays the weights' gradient out transposed
    and then copies it: a third of a step (FC, CPU). On a CPU a network's bits do not depend on the stack's size."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.dtype = x.dtype
        x, weight, bias = _multiplicable(x, weight, bias.to(x.dtype))
        ctx.save_for_backward(x, weight)
        return torch.baddbmm(bias.unsqueeze(1), x, weight.transpose(1, 2)).to(ctx.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        gradient = gradient.to(x.dtype)
        to_x = torch.bmm(gradient, weight).to(ctx.dtype) if ctx.needs_input_grad[0] else None
        if weight.shape[1] < NARROW:
            to_weight = torch.bmm(x.transpose(1, 2), gradient).transpose(1, 2).contiguous()
        else:
            to_weight = torch.bmm(gradient.transpose(1, 2), x)
        return to_x, to_weight.to(ctx.dtype), gradient.sum(1, dtype=torch.float32)


def rectified(layer: Layer, x: Tensor) -> Tensor:
    """The outputs of a convolution, max-pooled where the layer is, after the ReLU. The two commute,
    gradients included, to the bit: pooled first, fewer numbers are moved. Without a pool `x` is overwritten."""
    return (F.max_pool2d(x, 2) if layer.pool else x).relu_()


@cache
def _streams(device: torch.device, number: int) -> list[torch.cuda.Stream]:
    return [torch.cuda.Stream(device) for _ in range(number)]


@contextmanager
def forked(streams: list[torch.cuda.Stream]) -> Iterator[None]:
    """What is meanwhile computed on the streams of a GPU comes after what was asked for before, and before what is
    asked for after."""
    here = torch.cuda.current_stream(streams[0].device)
    for stream in streams:
        stream.wait_stream(here)
    yield
    for stream in streams:
        here.wait_stream(stream)


@contextmanager
def _side_by_side(device: torch.device, number: int) -> Iterator[list[Callable[[], AbstractContextManager]]]:
    """Contexts under which what is computed may overlap: on a GPU, which one network does not fill, so many streams; on
    a CPU a single one, of no effect."""
    if device.type != "cuda":
        yield [nullcontext]
        return
    streams = _streams(device, number)
    with forked(streams):
        yield [partial(torch.cuda.stream, stream) for stream in streams]


def features(
    layers: tuple[Layer, ...], weights: list[Tensor], biases: list[Tensor], images: Tensor, lanes: int = LANES
) -> Tensor:
    """The convolutional part of a stack: (M, B, features) of images (M, B, channels, height, width).

    Network by network, and on a GPU `lanes` of them side by side, which is faster than one grouped or vmapped
    convolution (`bench/convolutions.py`). It runs, and hands its features on, with the channels last: that is how the
    matrix units want them, and how Keras flattens them, and so no activation is laid out anew.
    """
    each, networks = [], enumerate(zip(zip(*weights), zip(*biases), images))
    with _side_by_side(images.device, lanes) as contexts:
        for m, (own_weights, own_biases, x) in networks:
            with contexts[m % len(contexts)]():
                x = x.contiguous(memory_format=torch.channels_last)
                for layer, weight, bias in zip(layers, own_weights, own_biases):
                    x = rectified(layer, F.conv2d(*_multiplicable(x, weight, bias), padding=1).to(x.dtype))
                each.append(x.permute(0, 2, 3, 1).flatten(1))
    return torch.stack(each)


def forward(
    network: Network,
    weights: list[Tensor],
    biases: list[Tensor],
    images: Tensor,
    dropout: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Logits (M, B, 10) of a stack of M networks on images (M, B, pixels) or (M, B, channels, height, width); the
    outputs of the dense layers but the last go through `dropout`."""
    x = images.to(weights[0].dtype)
    convolutions = sum(layer.role == "conv" for layer in network.layers)
    if convolutions:
        own = slice(convolutions)
        x = features(network.layers[own], weights[own], [b.to(x.dtype) for b in biases[own]], x)
    for i in range(convolutions, len(weights)):
        x = _StackedLinear.apply(x.to(weights[i].dtype), weights[i], biases[i])  # (M, B, outputs)
        if i < len(weights) - 1:
            x = x.relu()
            x = dropout(x) if dropout else x
    return x
