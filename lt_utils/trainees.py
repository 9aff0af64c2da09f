"""What the training loop trains: weights by Adam, or the scores of a learned supermask by SGD.

Both keep fp32 values and lend the forward pass tensors of the run's precision (the output layer's are always fp32).
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from lt_utils.randomness import generator
from lt_utils.runs import Run

SPARSE = 0.2  # of a layer's weights; below this Adam is given the trained ones alone (measured on a CPU)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Start:
    """Where networks start: weights and masks, a tensor per layer with the network axis first. Biases start at 0."""

    weights: list[Tensor]
    masks: list[Tensor]  # True: trained; False: frozen at its value in `weights`


class Trainee(Protocol):
    """What the loop trains."""

    trained: list[Tensor]  # fp32, network axis first

    def leaves(self) -> tuple[list[Tensor], list[Tensor]]:
        """Weights and biases for the forward pass of a step; a learned mask is sampled anew."""

    def parameters(self, values: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Weights and biases that `values`, of the shapes of `trained`, stand for; a learned mask is sampled anew."""

    def update(self) -> None:
        """One optimiser step, after the backward pass."""


def precisions(run: Run) -> list[torch.dtype]:
    """The number format in which each layer of a run computes."""
    return [*[DTYPES[run.precision]] * (run.layers - 1), torch.float32]


class _Layer:
    """A layer's weights: fp32 values, the leaf that the forward pass uses, and what of them Adam is given."""

    def __init__(self, weight: Tensor, mask: Tensor, dtype: torch.dtype) -> None:
        self.weight = weight.clone()
        self.leaf = self.weight.to(dtype).requires_grad_()  # `weight` itself, if it is fp32 already
        few = mask.float().mean() < SPARSE
        self.index = mask.flatten().nonzero().squeeze(1) if few else None
        self.mask = None if few or mask.all() else mask.float()
        self.given = self.weight.detach().view(-1)[self.index] if few else self.weight

    def collect(self) -> None:
        """Give Adam the gradients of the weights that are trained, and zero those of the frozen ones."""
        gradient = self.leaf.grad
        if self.index is not None:
            self.given.grad = gradient.view(-1).index_select(0, self.index).float()
        else:
            self.given.grad = gradient.float()
            if self.mask is not None:
                self.given.grad.mul_(self.mask)

    def spread(self) -> None:
        """Bring the values and the leaf up to date with what Adam did; frozen weights are not touched."""
        if self.index is not None:
            self.weight.view(-1).scatter_(0, self.index, self.given)
        if self.leaf is not self.weight:
            self.leaf.copy_(self.weight)
        self.leaf.grad = None


class Weights:
    """Ordinary training: Adam on weights and biases; only weights under the mask are trained."""

    def __init__(self, runs: list[Run], start: Start) -> None:
        self.dtypes = precisions(runs[0])
        self.layers = [_Layer(w, m, d) for w, m, d in zip(start.weights, start.masks, self.dtypes)]
        self.biases = [w.new_zeros(w.shape[:2]).requires_grad_() for w in start.weights]
        self.trained = [layer.weight for layer in self.layers] + self.biases
        given = [layer.given for layer in self.layers] + self.biases
        self.optimiser = torch.optim.Adam(given, lr=runs[0].learning_rate, fused=True)

    def leaves(self) -> tuple[list[Tensor], list[Tensor]]:
        """The weights and biases themselves, in the precision of the run."""
        return [layer.leaf for layer in self.layers], self.biases

    def parameters(self, values: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """The weights and biases that `values` are, in the precision of the run."""
        layers = len(self.layers)
        return [v.to(d) for v, d in zip(values[:layers], self.dtypes)], values[layers:]

    @torch.no_grad()
    def update(self) -> None:
        """One Adam step of the weights under the mask, and of the biases."""
        for layer in self.layers:
            layer.collect()
        self.optimiser.step()
        self.optimiser.zero_grad()
        for layer in self.layers:
            layer.spread()


class Sampler:
    """Uniform random numbers for sampled masks: one stream per seed, whatever else is in the stack."""

    def __init__(self, runs: list[Run], purpose: str, device: torch.device) -> None:
        seeds = sorted({run.seed for run in runs})
        self._streams = [generator(seed, purpose, device=device) for seed in seeds]
        self._which = torch.tensor([seeds.index(run.seed) for run in runs], device=device)

    def uniform(self, like: Tensor) -> Tensor:
        """Numbers in [0, 1) of the shape of `like` (M, ...); networks of one seed get the same."""
        draws = [torch.rand(like.shape[1:], generator=g, device=like.device) for g in self._streams]
        return torch.stack(draws)[self._which]


class _SampledMask(torch.autograd.Function):
    """weights * b * factor, b ~ Bernoulli(sigmoid(scores)); straight-through: b's gradient goes to sigmoid(scores)."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, weights: Tensor, uniform: Tensor, dwr: Tensor, dtype: torch.dtype) -> Tensor:
        probability = scores.sigmoid()
        mask = (uniform < probability).float()
        factor = rescaling(mask, dwr)
        ctx.save_for_backward(weights, factor, probability)
        return mask.mul_(weights).mul_(factor).to(dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weights, factor, probability = ctx.saved_tensors
        to_mask = (gradient.float() * weights).mul_(factor)
        return torch.ops.aten.sigmoid_backward(to_mask, probability), None, None, None, None


def rescaling(mask: Tensor, dwr: Tensor) -> Tensor:
    """Dynamic weight rescaling (section 5.2): (number of weights / number of ones) per network of a layer's masks
    (M, ...), of zeros and ones, where `dwr` (M,) is True, else 1; shaped to multiply the layer's weights."""
    ones = mask.flatten(1).sum(1).clamp(min=1)
    factor = torch.where(dwr, mask[0].numel() / ones, 1.0)
    return factor.view(-1, *[1] * (mask.ndim - 1))


class Scores:
    """Learned supermasks: SGD on a score per weight; weights and biases stay at their start."""

    def __init__(self, runs: list[Run], start: Start) -> None:
        self.weights, self.dtypes = start.weights, precisions(runs[0])
        self.biases = [w.new_zeros(w.shape[:2]) for w in start.weights]
        self.dwr = torch.tensor([run.dwr for run in runs], device=start.weights[0].device)
        self.trained = [torch.zeros_like(w).requires_grad_() for w in start.weights]
        self.draw = Sampler(runs, "masks", start.weights[0].device)
        self.optimiser = torch.optim.SGD(self.trained, lr=runs[0].learning_rate, momentum=0.9, fused=True)

    def leaves(self) -> tuple[list[Tensor], list[Tensor]]:
        """The start weights under a sampled mask, and biases of zero."""
        return self.parameters(self.trained)

    def parameters(self, values: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """The start weights under a mask sampled from the scores `values`, and biases of zero."""
        masked = [
            _SampledMask.apply(s, w, self.draw.uniform(s), self.dwr, d)
            for s, w, d in zip(values, self.weights, self.dtypes)
        ]
        return masked, self.biases

    def update(self) -> None:
        """One SGD step of the scores."""
        self.optimiser.step()
        self.optimiser.zero_grad()
