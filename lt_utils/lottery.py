"""The lottery ticket procedure: how a run starts from its parent, and the execution of a sweep in stacks."""

import time
from collections.abc import Iterable
from functools import lru_cache

import pandas as pd
import torch
from torch import Tensor

from lt_utils import data, store
from lt_utils.actions import Pruning, restart
from lt_utils.criteria import prune
from lt_utils.networks import NETWORKS, initial_weights
from lt_utils.progress import Progress
from lt_utils.randomness import generator
from lt_utils.runs import Run
from lt_utils.trainees import DTYPES, Start, precisions
from lt_utils.training import Outcome, evaluate, train

CPU_STACK = 16  # networks; more gains little once a step's fixed cost is spread out
Layers = list[Tensor]


def default_device() -> str:
    """The first GPU, if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


@lru_cache(maxsize=4)
def _parent(run: Run) -> tuple[Layers, Layers, Layers]:
    """Start, final weights and mask of a finished run, a tensor per layer each."""
    return *store.weights(run), store.mask(run)


def starting_point(run: Run) -> tuple[Layers, Layers]:
    """Start weights and mask of a run, a CPU tensor per layer each. Its parent must be finished."""
    layers, initial = NETWORKS[run.network].layers, initial_weights(run.network, run.seed)
    ones = [torch.ones(layer.shape, dtype=torch.bool) for layer in layers]
    if run.parent is None:  # dense, or a learned supermask
        w_i, w_f, before, kept = list(initial), list(initial), ones, ones
    elif run.parent.round == run.canonical.round and run.kind == "train":  # the winning ticket's mask
        w_i, w_f, before, kept = list(initial), list(initial), ones, store.mask(run.parent)
    else:
        w_i, w_f, before = _parent(run.parent)
        counts = run.canonical.prune_counts([int(mask.sum()) for mask in before])
        kept = [
            prune(run.criterion, *tensors, count, _source(run, "ties", i))
            for i, (*tensors, count) in enumerate(zip(w_i, w_f, before, counts))
        ]
    if run.parent is None and run.kind == "train":
        return w_i, kept
    prunings = [
        Pruning(layer, initial[i], w_i[i], w_f[i], kept[i], before[i] & ~kept[i], _source(run, "restart", i))
        for i, layer in enumerate(layers)
    ]
    return [restart(p, run.mask1, run.mask0) for p in prunings], kept


def _source(run: Run, purpose: str, layer: int) -> torch.Generator:
    return generator(run.seed, purpose, run.canonical.round, layer)


def _found(runs: list[Run], start: Start, dataset: data.Dataset) -> list[Outcome]:
    """Evaluate found supermasks: untrained weights under a mask, on the test set."""
    biases = [w.new_zeros(w.shape[:2]) for w in start.weights]
    weights = [w.to(dtype) for w, dtype in zip(start.weights, precisions(runs[0]))]
    _, accuracy = evaluate(runs[0].network, weights, biases, dataset.test)
    return [Outcome({"test_accuracy": value}) for value in accuracy.tolist()]


def _do(runs: list[Run], device: str, progress: Progress) -> None:
    """Train one stack and keep its results. Raises torch.OutOfMemoryError if the stack is too large."""
    began = time.monotonic()
    points = [starting_point(run) for run in runs]
    weights, masks = ([torch.stack(layer).to(device) for layer in zip(*part)] for part in zip(*points))
    dataset = data.load(NETWORKS[runs[0].network].dataset, device, DTYPES[runs[0].precision])
    if runs[0].kind == "found":
        outcomes = _found(runs, Start(weights, masks), dataset)
        progress.advance(len(runs))
    else:
        outcomes = train(runs, Start(weights, masks), dataset, progress.advance)
    seconds = (time.monotonic() - began) / len(runs)
    for run, outcome, (w, m) in zip(runs, outcomes, points):
        layers = [layer.float().mean().item() * 100 for layer in m]
        kept = 100 * sum(int(layer.sum()) for layer in m) / NETWORKS[run.network].weights
        remaining = {"weights_remaining": kept, **{f"layer_{i}_remaining": v for i, v in enumerate(layers)}}
        store.save(
            run,
            Outcome(remaining | outcome.metrics, outcome.history, outcome.weights, outcome.biases),
            w,
            m,
            device,
            seconds,
        )


def missing(runs: Iterable[Run]) -> dict[str, Run]:
    """The runs still to be done, with the parents that they need, by key; parents come first."""
    todo: dict[str, Run] = {}

    def visit(run: Run, needs_weights: bool) -> None:
        if run.key in todo or (store.metrics(run) and (not needs_weights or store.has_weights(run))):
            return
        if run.parent:
            visit(run.parent, needs_weights=run.canonical.schedule != "ticket")
        todo[run.key] = run

    for run in runs:
        visit(run, needs_weights=False)
    return todo


def _generations(todo: dict[str, Run]) -> Iterable[list[Run]]:
    """`todo` in groups that can be done together: every run's parent is in an earlier group or already done."""
    waiting = dict(todo)
    while waiting:
        ready = [run for run in waiting.values() if not (run.parent and run.parent.key in waiting)]
        for key in sorted({run.stack_key for run in ready}):
            yield sorted((run for run in ready if run.stack_key == key), key=lambda run: (run.seed, run.round, run.key))
        for run in ready:
            del waiting[run.key]


def execute(runs: Iterable[Run], device: str | None = None) -> None:
    """Do what is missing of `runs`, in stacks. What is finished is kept at once; calling again goes on from there."""
    device = device or default_device()
    todo = missing(runs)
    work = sum(1 if run.kind == "found" else run.iterations for run in todo.values())
    with Progress(work, len(todo)) as progress:
        for group in _generations(todo):
            _do_all(group, stack_size(group[0], device), device, progress)


def _do_all(group: list[Run], size: int, device: str, progress: Progress) -> None:
    """Do a group in stacks of `size`, halved whenever the device runs out of memory."""
    while group:
        try:
            _do(group[:size], device, progress)
            group = group[size:]
        except torch.OutOfMemoryError:
            if size == 1:
                raise
            size //= 2
            torch.cuda.empty_cache()


def stack_size(run: Run, device: str) -> int:
    """How many networks to train at once: what pays on a CPU, what fits the memory of a GPU."""
    if device == "cpu":
        return CPU_STACK
    network = NETWORKS[run.network]
    activations = (
        4 * max(run.batch, 500) * sum(layer.outputs * (1024 if layer.role == "conv" else 1) for layer in network.layers)
    )
    free, _ = torch.cuda.mem_get_info(device)
    return max(1, min(512, int(0.7 * free / (9 * 4 * network.weights + 3 * activations))))


def run(runs: list[Run], device: str | None = None) -> pd.DataFrame:
    """Do what is missing of a sweep and return its table, one row per run, sorted.

    Columns: the fields of `Run`; `weights_remaining` in % (and per layer); accuracies in %; the provenance.
    """
    execute(runs, device)
    rows = []
    for one in runs:
        entry = store.metrics(one)
        rows.append(one.describe() | entry["metrics"] | entry["provenance"] | {"key": one.key})
    return pd.DataFrame(rows).sort_values(list(Run.__annotations__), ignore_index=True)
