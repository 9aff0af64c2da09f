"""Where a run starts: weights and masks made from the seed and from the run that it builds on."""

from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor

from lt_utils import store
from lt_utils.actions import Pruning, restart
from lt_utils.criteria import prune
from lt_utils.networks import NETWORKS, initial_weights
from lt_utils.randomness import generator
from lt_utils.runs import Run

Layers = list[Tensor]


def _to(device: str, layers: Iterable[Tensor]) -> Layers:
    return [layer.to(device) for layer in layers]


@lru_cache(maxsize=8)
def finished_weights(run: Run, device: str) -> tuple[Layers, Layers, Layers]:
    """Start, final weights and mask of a finished run, a tensor per layer each, on a device."""
    start, final, _ = store.weights(run)
    return _to(device, start), _to(device, final), _to(device, store.mask(run))


def starting_point(run: Run, device: str = "cpu") -> tuple[Layers, Layers]:
    """Start weights and mask of a run, a tensor per layer each, made on `device` from random numbers of the CPU's. Its
    parent must be finished."""
    initial = _to(device, initial_weights(run.network, run.seed))
    ones = [torch.ones_like(w, dtype=torch.bool) for w in initial]
    if run.parent is None:  # dense, or a learned supermask
        w_i, w_f, before, kept = list(initial), list(initial), ones, ones
    elif run.parent.round == run.canonical.round and run.kind == "train":  # the winning ticket's mask
        w_i, w_f, before, kept = list(initial), list(initial), ones, _to(device, store.mask(run.parent))
    else:
        w_i, w_f, before = finished_weights(run.parent, device)
        counts = run.canonical.prune_counts([int(mask.sum()) for mask in before])
        kept = [
            prune(run.criterion, *tensors, count, _source(run, "ties", i))
            for i, (*tensors, count) in enumerate(zip(w_i, w_f, before, counts))
        ]
    if run.parent is None and run.kind == "train":
        return w_i, kept
    parts = enumerate(zip(initial, w_i, w_f, kept, before))
    return [restarted(run, i, *values, mask, was & ~mask) for i, (*values, mask, was) in parts], kept


def restarted(run: Run, i: int, w_0: Tensor, w_i: Tensor, w_f: Tensor, kept: Tensor, pruned: Tensor) -> Tensor:
    """The start values of layer `i` of a run, by its mask actions and its noise; see `Pruning` for the tensors."""
    layer = NETWORKS[run.network].layers[i]
    pruning = Pruning(layer, w_0, w_i, w_f, kept, pruned, _source(run, "restart", i))
    values = restart(pruning, run.mask1, run.mask0)
    if run.noise:
        noise = torch.randn(values.shape, generator=_source(run, "noise", i)).to(values.device)
        values = torch.where(kept, values + run.noise * layer.glorot_std * noise, values)
    return values


def _source(run: Run, purpose: str, layer: int) -> torch.Generator:
    return generator(run.seed, purpose, run.canonical.round, layer)


def distances(run: Run, kept: Layers, device: str = "cpu") -> dict[str, float]:
    """How far the weights of a mask went in the training of the dense network, and how far the others, in standard
    deviations of a layer's start, mean over layers (LTH, appendix F); nothing for a dense network, or if its weights
    aren't kept any more."""
    dense = replace(run, round=0).canonical
    if dense == run.canonical or not store.has_weights(dense):
        return {}
    start, final, _ = finished_weights(dense, device)
    went = [(f - s).abs() / layer.glorot_std for s, f, layer in zip(start, final, NETWORKS[run.network].layers)]
    both = {"distance_kept": kept, "distance_pruned": [~k for k in kept]}
    return {name: sum(w[m].mean().item() for w, m in zip(went, masks)) / len(went) for name, masks in both.items()}
