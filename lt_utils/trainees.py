"""What the training loop trains: weights by Adam, or the scores of a learned supermask by SGD.

Both keep fp32 values and lend the forward pass tensors of the run's precision (the output layer's are always fp32).
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from lt_utils.randomness import Dropout, Sampler
from lt_utils.runs import Run

SPARSE = 0.35  # of a layer's weights; below this Adam is given the trained ones alone (measured on a CPU)
LINE = 16  # numbers in a cache line
MOMENTS = ("exp_avg", "exp_avg_sq")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Start:
    """Where networks start: weights and masks, a tensor per layer with the network axis first. Biases start at 0."""

    weights: list[Tensor]
    masks: list[Tensor]  # True: trained; False: frozen at its value in `weights`


class Trainee(Protocol):
    """What the loop trains."""

    dropout: Dropout | None  # of the steps of training

    @property
    def trained(self) -> list[Tensor]:
        """What is trained: fp32, network axis first."""

    def leaves(self) -> tuple[list[Tensor], list[Tensor]]:
        """Weights and biases for the forward pass of a step; a learned mask is sampled anew."""

    def parameters(self, values: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Weights and biases that `values`, of the shapes of `trained`, stand for; a learned mask is sampled anew."""

    def update(self) -> None:
        """One optimiser step, after the backward pass."""

    def draw_for(self, purpose: str) -> None:
        """Sample masks from now on from the random streams of a purpose."""

    def streams(self) -> list[torch.Generator]:
        """The generators from which a step draws."""

    def state(self) -> dict[str, Tensor]:
        """All that training goes on from, network axis first."""

    def restore(self, state: dict[str, Tensor], steps: int) -> None:
        """Go on from a `state` after so many steps; gradients that are there are dropped."""


def precisions(run: Run) -> list[torch.dtype]:
    """The number format in which each layer of a run computes."""
    return [*[DTYPES[run.precision]] * (run.layers - 1), torch.float32]


def _chosen(mask: Tensor, dtype: torch.dtype) -> tuple[Tensor | None, Tensor | None]:
    """How a layer's trained weights are chosen: by their indices, if they are few, or by a mask of numbers, or all."""
    if mask.float().mean() < SPARSE:
        return mask.flatten().nonzero().squeeze(1), None
    return None, None if mask.all() else mask.to(dtype)


class _Layer:
    """A layer's weights or biases: fp32 values, the leaf that the forward pass uses, and what of them Adam is given:
    all, or, if few are trained, those alone; filled up to whole cache lines, as Adam rounds what is left over
    differently, and a network's bits must not depend on its place in a stack."""

    def __init__(self, values: Tensor, mask: Tensor, dtype: torch.dtype) -> None:
        self._values = values.clone()
        self.leaf = self._values.to(dtype).requires_grad_()  # `_values` itself, if it is fp32 already
        self.index, self.mask = _chosen(mask, dtype)
        self.number = values.numel() if self.index is None else len(self.index)
        whole = self.index is None and self.number % LINE == 0
        self.given = self._values if whole else self.sparse(self._values.detach())

    @property
    def values(self) -> Tensor:
        """The fp32 values, brought up to date with what Adam did: where few are trained, steps do without them."""
        if self.index is not None and self.leaf is not self._values:
            self._values.view(-1).index_copy_(0, self.index, self.given[: self.number])
        return self._values

    @values.setter
    def values(self, values: Tensor) -> None:
        self.leaf.grad = self.given.grad = None
        self._values.copy_(values)
        if self.given is not self._values:
            self.given.copy_(self.sparse(self._values))
        self.leaf.copy_(self._values)

    def dense(self, given: Tensor) -> Tensor:
        """Numbers in the shape of what Adam is given, in the shape of the values."""
        if given.shape == self._values.shape:
            return given
        if self.index is None:
            return given[: self.number].view_as(self._values)
        flat = torch.zeros_like(self._values).view(-1)
        return flat.index_copy_(0, self.index, given[: self.number]).view_as(self._values)

    def sparse(self, numbers: Tensor) -> Tensor:
        """The reverse of `dense`; a copy."""
        flat = numbers.reshape(-1) if self.index is None else numbers.view(-1).index_select(0, self.index)
        return F.pad(flat.float(), (0, -self.number % LINE))

    def collect(self) -> None:
        """Give Adam the gradients of the weights that are trained, and zero those of the frozen ones."""
        gradient = self.leaf.grad if self.mask is None else self.leaf.grad.mul_(self.mask)
        self.given.grad = gradient.float() if self.given is self._values else self.sparse(gradient)

    def spread(self) -> None:
        """Bring the leaf up to date with what Adam did; frozen weights are not touched."""
        if self.index is not None:
            self.leaf.view(-1).index_copy_(0, self.index, self.given[: self.number].to(self.leaf.dtype))
        else:
            if self.given is not self._values:
                self._values.copy_(self.given[: self.number].view_as(self._values))
            if self.leaf is not self._values:
                self.leaf.copy_(self._values)
        self.leaf.grad = None


@torch.no_grad()
def _update(layers: list[_Layer], optimiser: torch.optim.Optimizer) -> None:
    for layer in layers:
        layer.collect()
    optimiser.step()
    optimiser.zero_grad()
    for layer in layers:
        layer.spread()


class Weights:
    """Ordinary training: Adam on weights and biases; only weights under the mask are trained."""

    def __init__(self, runs: list[Run], start: Start) -> None:
        rate, seeds = runs[0].dropout, [run.seed for run in runs]
        self.dropout = Dropout(rate, seeds, start.weights[0].device) if rate else None
        self.dtypes = precisions(runs[0])
        self.layers = [_Layer(w, m, d) for w, m, d in zip(start.weights, start.masks, self.dtypes)]
        zeros = [w.new_zeros(w.shape[:2]) for w in start.weights]
        self.biases = [_Layer(b, torch.ones_like(b, dtype=torch.bool), torch.float32) for b in zeros]
        given = [layer.given for layer in self._all]
        options = {"fused": True, "capturable": given[0].is_cuda}
        self.optimiser = torch.optim.Adam(given, lr=runs[0].learning_rate, **options)
        for values in given:
            moments = {name: torch.zeros_like(values) for name in MOMENTS}
            self.optimiser.state[values] = {"step": values.new_zeros(()), **moments}

    @property
    def _all(self) -> list[_Layer]:
        return self.layers + self.biases

    @property
    def trained(self) -> list[Tensor]:
        """The fp32 values of weights and biases."""
        return [layer.values for layer in self._all]

    def leaves(self) -> tuple[list[Tensor], list[Tensor]]:
        """The weights and biases themselves, in the precision of the run."""
        return [layer.leaf for layer in self.layers], [bias.leaf for bias in self.biases]

    def parameters(self, values: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """The weights and biases that `values` are, in the precision of the run."""
        layers = len(self.layers)
        return [v.to(d) for v, d in zip(values[:layers], self.dtypes)], values[layers:]

    def update(self) -> None:
        """One Adam step of the weights under the mask, and of the biases."""
        _update(self._all, self.optimiser)

    def draw_for(self, purpose: str) -> None:
        """Nothing: no masks are sampled."""

    def streams(self) -> list[torch.Generator]:
        """Those of dropout."""
        return self.dropout.draw.streams if self.dropout else []

    @torch.no_grad()
    def state(self) -> dict[str, Tensor]:
        """Values, Adam's two moments, and the random streams of dropout."""
        state = {"random": self.dropout.draw.state()} if self.dropout else {}
        for i, layer in enumerate(self._all):
            state[f"value.{i}"] = layer.values.detach()
            for name in MOMENTS:
                state[f"{name}.{i}"] = layer.dense(self.optimiser.state[layer.given][name])
        return state

    @torch.no_grad()
    def restore(self, state: dict[str, Tensor], steps: int) -> None:
        """Go on from values and moments after so many steps."""
        for i, layer in enumerate(self._all):
            layer.values = state[f"value.{i}"]
            kept = self.optimiser.state[layer.given]
            kept["step"].fill_(steps)
            for name in MOMENTS:
                kept[name].copy_(layer.sparse(state[f"{name}.{i}"]).view_as(layer.given))
        if self.dropout:
            self.dropout.draw.restore(state["random"])


class _SampledMask(torch.autograd.Function):
    """weights * b * factor, b ~ Bernoulli(sigmoid(scores)); straight-through: b's gradient goes to sigmoid(scores).

    With dynamic weight rescaling the factor, too, depends on b, and its gradient is part of b's (authors' code): more
    ones make all weights smaller, so that a mask gains nothing by growing or shrinking as a whole.
    """

    @staticmethod
    def forward(ctx: Any, scores: Tensor, weights: Tensor, whose: "Scores", dtype: torch.dtype) -> Tensor:
        slopes, masked, ctx.parts = torch.empty_like(scores), torch.empty_like(weights, dtype=dtype), []
        parts = whose.draw.parts(scores, slopes, weights, masked, whose.dwr)
        for whom, uniform, score, slope, weight, product, dwr in parts:
            torch.sigmoid(score, out=slope)
            mask = torch.lt(uniform, slope, out=torch.empty_like(uniform))  # of numbers: truth values take a CPU longer
            rescaled = any(whose.rescaled[whom])
            factor = rescaling(mask, dwr) if rescaled else None
            # the slope of the sigmoid, times the factor or the weights, here, while it is in the caches
            torch.ops.aten.sigmoid_backward(factor.expand_as(slope) if rescaled else weight, slope, grad_input=slope)
            torch.mul(mask.mul_(factor) if rescaled else mask, weight, out=product)
            ctx.parts.append((whom, dwr.view_as(factor) if rescaled else None))
        ctx.save_for_backward(slopes, masked, weights)
        return masked

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        slopes, masked, weights = ctx.saved_tensors
        to_scores = torch.empty_like(slopes)
        for whom, dwr in ctx.parts:
            change = gradient[whom]
            if dwr is not None:  # to b go factor * (gradient * weights - mean(gradient * weights * b * factor))
                mean = (change * masked[whom]).flatten(1).mean(1, dtype=torch.float32).view_as(dwr)
                change = torch.addcmul(-mean * dwr, change, weights[whom])
            torch.mul(change, slopes[whom], out=to_scores[whom])
        return to_scores, None, None, None


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
        self.rescaled = [run.dwr for run in runs]  # beside the tensor, as to ask a GPU would be to wait for it
        self.dwr = torch.tensor(self.rescaled, device=start.weights[0].device)
        every = [torch.ones_like(w, dtype=torch.bool) for w in start.weights]
        self.layers = [_Layer(torch.zeros_like(w), m, torch.float32) for w, m in zip(start.weights, every)]
        self.seeds, self.dropout = [run.seed for run in runs], None
        self.draw_for("masks")
        given = [layer.given for layer in self.layers]
        self.optimiser = torch.optim.SGD(given, lr=runs[0].learning_rate, momentum=0.9, fused=True)
        for scores in given:
            self.optimiser.state[scores] = {"momentum_buffer": torch.zeros_like(scores)}

    @property
    def trained(self) -> list[Tensor]:
        """The scores."""
        return [layer.values for layer in self.layers]

    def leaves(self) -> tuple[list[Tensor], list[Tensor]]:
        """The start weights under a sampled mask, and biases of zero."""
        return self.parameters([layer.leaf for layer in self.layers])

    def parameters(self, values: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """The start weights under a mask sampled from the scores `values`, and biases of zero."""
        masked = [_SampledMask.apply(s, w, self, d) for s, w, d in zip(values, self.weights, self.dtypes)]
        return masked, self.biases

    def update(self) -> None:
        """One SGD step of the scores."""
        _update(self.layers, self.optimiser)

    def draw_for(self, purpose: str) -> None:
        """Sample masks from now on from the random streams of a purpose."""
        self.draw = Sampler(self.seeds, purpose, self.weights[0].device)

    def streams(self) -> list[torch.Generator]:
        """Those of the masks."""
        return self.draw.streams

    def state(self) -> dict[str, Tensor]:
        """Scores, momentum, and the random streams."""
        momenta = [layer.dense(self.optimiser.state[layer.given]["momentum_buffer"]) for layer in self.layers]
        values = {f"value.{i}": scores.detach() for i, scores in enumerate(self.trained)}
        return values | {f"momentum.{i}": m for i, m in enumerate(momenta)} | {"random": self.draw.state()}

    @torch.no_grad()
    def restore(self, state: dict[str, Tensor], steps: int) -> None:
        """Go on from scores, momentum and random streams; how many steps they took does not matter."""
        for i, layer in enumerate(self.layers):
            layer.values = state[f"value.{i}"]
            momentum = layer.sparse(state[f"momentum.{i}"]).view_as(layer.given)
            self.optimiser.state[layer.given]["momentum_buffer"].copy_(momentum)
        self.draw.restore(state["random"])


def trainee_of(runs: list[Run], start: Start) -> Trainee:
    """What a stack of runs trains: scores of learned supermasks, else weights."""
    return (Scores if runs[0].kind == "learned" else Weights)(runs, start)
