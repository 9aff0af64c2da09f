"""Mask criteria (Zhou et al. 2019, section 2): a score per weight, and the cut from scores to a mask.

A criterion takes the start values `w_i` and the final values `w_f` of a layer's kept weights, both of shape (n,), and
returns scores (n,): the lowest are pruned. To add one, write its function below under `@criterion`; sweeps, tables,
figures and the tests of invariants find it by its name.
"""

from collections.abc import Callable
from fractions import Fraction

import torch
from torch import Tensor

Criterion = Callable[[Tensor, Tensor], Tensor]
CRITERIA: dict[str, Criterion] = {}
LOWEST = -torch.inf


def criterion(function: Criterion) -> Criterion:
    """Register a criterion under its function's name."""
    CRITERIA[function.__name__] = function
    return function


@criterion
def large_final(w_i: Tensor, w_f: Tensor) -> Tensor:
    """Keep the weights that end large: the lottery ticket criterion."""
    return w_f.abs()


@criterion
def small_final(w_i: Tensor, w_f: Tensor) -> Tensor:
    """Keep the weights that end small."""
    return -w_f.abs()


@criterion
def large_init(w_i: Tensor, w_f: Tensor) -> Tensor:
    """Keep the weights that start large."""
    return w_i.abs()


@criterion
def small_init(w_i: Tensor, w_f: Tensor) -> Tensor:
    """Keep the weights that start small."""
    return -w_i.abs()


@criterion
def large_init_large_final(w_i: Tensor, w_f: Tensor) -> Tensor:
    """min(a |w_f|, |w_i|), with the a that puts the same share of |w_i| and of |w_f| under the threshold.

    Under any threshold of that form a weight falls exactly when the lower of its two ranks does, so ranks stand in for
    a and need no search.
    """
    return torch.minimum(_rank(w_f.abs()), _rank(w_i.abs()))


@criterion
def small_init_small_final(w_i: Tensor, w_f: Tensor) -> Tensor:
    """-max(a |w_f|, |w_i|), with a set as in `large_init_large_final`."""
    return -torch.maximum(_rank(w_f.abs()), _rank(w_i.abs()))


@criterion
def magnitude_increase(w_i: Tensor, w_f: Tensor) -> Tensor:
    """Keep the weights whose magnitude grew most."""
    return w_f.abs() - w_i.abs()


@criterion
def movement(w_i: Tensor, w_f: Tensor) -> Tensor:
    """Keep the weights that moved farthest."""
    return (w_f - w_i).abs()


@criterion
def random(w_i: Tensor, w_f: Tensor) -> Tensor:
    """All scores equal, so that chance decides."""
    return torch.zeros_like(w_f)


@criterion
def large_final_same_sign(w_i: Tensor, w_f: Tensor) -> Tensor:
    """|w_f| where the weight kept its sign, else 0 (section 5)."""
    return (w_i.sign() * w_f).clamp(min=0)


@criterion
def large_final_diff_sign(w_i: Tensor, w_f: Tensor) -> Tensor:
    """|w_f| where the weight changed its sign, else 0: the control of `large_final_same_sign`."""
    return (-w_i.sign() * w_f).clamp(min=0)


@criterion
def magnitude_increase_same_sign(w_i: Tensor, w_f: Tensor) -> Tensor:
    """|w_f| - |w_i| where the weight kept its sign; every other weight ranks below all of these."""
    return magnitude_increase(w_i, w_f).where(w_i * w_f > 0, LOWEST)


@criterion
def magnitude_increase_diff_sign(w_i: Tensor, w_f: Tensor) -> Tensor:
    """|w_f| - |w_i| where the weight changed its sign; every other weight ranks below all of these."""
    return magnitude_increase(w_i, w_f).where(w_i * w_f < 0, LOWEST)


def _rank(values: Tensor) -> Tensor:
    """Rank of each value, 0 for the lowest; equal values share the lowest of their ranks."""
    _, group, sizes = torch.unique(values, return_inverse=True, return_counts=True)
    return (sizes.cumsum(0) - sizes)[group]


def prune_count(kept: float, weights: int, power: int = 1) -> int:
    """floor((1 - kept^power) * weights) in exact decimal arithmetic: `prune_count(0.8, 1200)` is 240, not 239."""
    return int((1 - Fraction(str(kept)) ** power) * weights)


def cut(scores: Tensor, count: int, source: torch.Generator) -> Tensor:
    """Mask (n,) that is False for the `count` lowest of `scores` (n,). Ties at the threshold break at random; a score
    that is not a number ranks lowest."""
    if count == 0:
        return torch.ones_like(scores, dtype=torch.bool)
    scores = scores.nan_to_num(nan=LOWEST, neginf=LOWEST)
    threshold = scores.kthvalue(count).values
    mask = scores >= threshold
    tied = (scores == threshold).nonzero().squeeze(1)
    still_to_prune = count - int((~mask).sum())
    chosen = torch.randperm(len(tied), generator=source)[:still_to_prune]
    mask[tied[chosen.to(tied.device)]] = False
    return mask


def prune(name: str, w_i: Tensor, w_f: Tensor, mask: Tensor, count: int, source: torch.Generator) -> Tensor:
    """The mask after pruning `count` more of a layer's kept weights by criterion `name`; pruned weights stay pruned.

    All tensors have the layer's shape and lie on one device; `source` is the CPU's.
    """
    pruned = mask.clone()
    pruned[mask] = cut(CRITERIA[name](w_i[mask], w_f[mask]), count, source)
    return pruned
