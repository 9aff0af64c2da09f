"""What kept weights restart from (mask-1 actions, Zhou et al. 2019, section 3) and what pruned weights are frozen at
(mask-0 actions, section 4). An action works on one layer; all tensors have the layer's shape and lie on one
device; random numbers come from the CPU, the same for every device.

To add an action write its function below under `@mask1` or `@mask0`; everything else finds it by its name.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lt_utils.networks import Layer, draw


@dataclass(frozen=True)
class Pruning:
    """One layer at the end of a training, with its next mask."""

    layer: Layer
    w_0: Tensor  # what the seed drew for the layer in the beginning
    w_i: Tensor  # what the training that just ended started from
    w_f: Tensor  # where it ended
    kept: Tensor  # the next mask: True where kept
    pruned: Tensor  # True where pruned just now, and not before
    source: torch.Generator

    @property
    def toward_zero(self) -> Tensor:
        """True where training moved the weight toward zero."""
        return self.w_f.abs() < self.w_i.abs()

    @property
    def away_from_zero(self) -> Tensor:
        """True where training moved the weight away from zero; a weight that stayed put did neither."""
        return self.w_f.abs() > self.w_i.abs()


Action = Callable[[Pruning], Tensor]
MASK1_ACTIONS: dict[str, Action] = {}
MASK0_ACTIONS: dict[str, Action] = {}


def mask1(function: Action) -> Action:
    """Register a mask-1 action: it returns values of the layer's shape, of which those of kept weights count."""
    MASK1_ACTIONS[function.__name__] = function
    return function


def mask0(function: Action) -> Action:
    """Register a mask-0 action: it returns values of the layer's shape; those of weights pruned just now count."""
    MASK0_ACTIONS[function.__name__] = function
    return function


@mask1
def rewind(p: Pruning) -> Tensor:
    """Their own start values."""
    return p.w_i


@mask1
def reinit(p: Pruning) -> Tensor:
    """A fresh draw from the initial distribution."""
    return draw(p.layer, p.source).to(p.w_i.device)


@mask1
def reshuffle(p: Pruning) -> Tensor:
    """The start values of the layer's kept weights, permuted among the kept weights."""
    values = p.w_i.clone()
    own = p.w_i[p.kept]
    values[p.kept] = own[torch.randperm(len(own), generator=p.source).to(own.device)]
    return values


@mask1
def constant(p: Pruning) -> Tensor:
    """+a or -a at random; a is the standard deviation of the layer's initial values."""
    signs = 2 * torch.randint(2, p.w_0.shape, generator=p.source) - 1
    return p.w_0.std() * signs.to(p.w_0.device)


@mask1
def reinit_same_sign(p: Pruning) -> Tensor:
    """`reinit` with the sign of each weight's own start value."""
    return reinit(p).abs() * p.w_i.sign()


@mask1
def reshuffle_same_sign(p: Pruning) -> Tensor:
    """`reshuffle` with the sign of each weight's own start value."""
    return reshuffle(p).abs() * p.w_i.sign()


@mask1
def constant_same_sign(p: Pruning) -> Tensor:
    """+a or -a by the sign of each weight's own start value: the signed constant of section 5 too."""
    return p.w_0.std() * p.w_i.sign()


@mask0
def zero(p: Pruning) -> Tensor:
    """Frozen at 0: the lottery ticket procedure."""
    return torch.zeros_like(p.w_i)


@mask0
def init(p: Pruning) -> Tensor:
    """Frozen at their start values."""
    return p.w_i


@mask0
def variant_1(p: Pruning) -> Tensor:
    """0 where the weight moved toward zero in training, else its start value."""
    return p.w_i.masked_fill(p.toward_zero, 0)


@mask0
def variant_2(p: Pruning) -> Tensor:
    """As `variant_1`; and kept weights that moved toward zero also restart from 0 (see `restart`)."""
    return variant_1(p)


@mask0
def control_random(p: Pruning) -> Tensor:
    """As many zeros as `variant_1` sets in the layer, on pruned weights chosen at random."""
    where = p.pruned.nonzero(as_tuple=True)
    chosen = torch.randperm(len(where[0]), generator=p.source)[: int((p.toward_zero & p.pruned).sum())]
    values = p.w_i.clone()
    values[tuple(axis[chosen.to(axis.device)] for axis in where)] = 0
    return values


@mask0
def control_reverse(p: Pruning) -> Tensor:
    """0 where the weight moved away from zero, else its start value."""
    return p.w_i.masked_fill(p.away_from_zero, 0)


def restart(p: Pruning, mask1_action: str, mask0_action: str) -> Tensor:
    """The layer's values at the start of the next training: kept weights from the mask-1 action, weights pruned just
    now from the mask-0 action, and weights frozen in an earlier round where they were frozen."""
    values = torch.where(p.pruned, MASK0_ACTIONS[mask0_action](p), p.w_i)
    values = torch.where(p.kept, MASK1_ACTIONS[mask1_action](p), values)
    return values.masked_fill(p.kept & p.toward_zero, 0) if mask0_action == "variant_2" else values
