"""Why do some pruned networks learn nothing at all? What their start passes on, beside Adam's epsilon.

    python -m bench.first_gradient --network conv4
    python -m bench.first_gradient --network conv2 --precision fp32
    python -m bench.first_gradient --network conv6 --iterations 200 --criteria random small_init --rounds 6 18 --seeds 1
    python -m bench.first_gradient --network conv6 --iterations 600 --criteria random --rounds 18 --seeds 1

Each layer of a pruned network passes a smaller signal on than the dense one's, and the smaller its weights, the
smaller; through nine layers little is left. Adam divides a gradient's mean by its size plus an epsilon (1e-8):
gradients well above that move a weight by the learning rate, those below hardly. Masks that only the initial weights
and chance decide are pruned at once to the density of a round of the paper. Of the first batch, in
results/bench/first_gradient.csv, a row per round and criterion, means over seeds: how far the logits vary from image
to image (standard deviation), the median gradient of a kept weight, and the percentage of them above epsilon. With
`--iterations`, in results/bench/adam_epsilon.csv: validation accuracy after so many, with Adam's epsilon and with a
far smaller one; the table has the last call with `--precision fp32 --iterations 300`, too. Other rows stay.
"""

import argparse
from functools import partial
from unittest import mock

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.common import keep
from lt_utils import data
from lt_utils.criteria import prune
from lt_utils.networks import NETWORKS, forward, initial_weights
from lt_utils.notebook import results_folder
from lt_utils.profiles import settings
from lt_utils.randomness import generator
from lt_utils.runs import Run, sweep
from lt_utils.trainees import DTYPES, Start, trainee_of
from lt_utils.training import batches, train

CHOICES = ("random", "large_init", "small_init")
ROUNDS = (6, 12, 18)
EPSILONS = (1e-8, 1e-16)  # Adam's, and a far smaller one
BY = ["network", "precision", "round", "criterion"]


def dataset(network: str, precision: str) -> data.Dataset:
    """The data set of a network, on the CPU."""
    return data.load(NETWORKS[network].dataset, "cpu", DTYPES[precision])


def pruned(run: Run, criterion: str, level: int) -> tuple[list[Tensor], list[Tensor]]:
    """Initial weights of a run's network and seed under a mask of `criterion` at the density of a round, and that mask:
    a tensor per layer each."""
    initial = initial_weights(run.network, run.seed)
    counts = NETWORKS[run.network].prune_counts([w.numel() for w in initial], level)
    sources = [generator(run.seed, "first gradient", level, i) for i in range(len(initial))]
    ones = [torch.ones_like(w, dtype=torch.bool) for w in initial]
    masks = [prune(criterion, w, w, one, n, source) for w, one, n, source in zip(initial, ones, counts, sources)]
    return [w * mask for w, mask in zip(initial, masks)], masks


def start_of(run: Run, treatments: list[tuple[str, int]]) -> Start:
    """The starts of a stack, one per criterion and round."""
    weights, masks = zip(*(pruned(run, criterion, level) for criterion, level in treatments))
    return Start([torch.stack(layer) for layer in zip(*weights)], [torch.stack(layer) for layer in zip(*masks)])


def gradient(run: Run, criterion: str, level: int) -> dict[str, float]:
    """What a network's first batch of training leaves in it."""
    start, split = start_of(run, [(criterion, level)]), dataset(run.network, run.precision).train
    trainee = trainee_of([run], start)
    weights, biases = trainee.leaves()
    rows = batches([run], 0, len(split.labels), torch.device("cpu"))[:, : run.batch]
    logits = forward(NETWORKS[run.network], weights, biases, split.images[rows])
    F.cross_entropy(logits[0].float(), split.labels[rows[0]]).backward()
    of_kept = torch.cat([w.grad[mask].float().abs() for w, mask in zip(weights, start.masks)])
    return {
        "kept_percent": 100 * len(of_kept) / NETWORKS[run.network].weights,
        "logit_std": logits[0].detach().float().std(0).mean().item(),
        "median_gradient": of_kept.median().item(),
        "above_epsilon_percent": 100 * (of_kept > EPSILONS[0]).float().mean().item(),
    }


def learned(run: Run, treatments: list[tuple[str, int]], epsilon: float) -> list[float]:
    """Validation accuracy in % of each treatment's network, after the run's iterations of Adam with an epsilon."""
    with mock.patch.object(torch.optim, "Adam", partial(torch.optim.Adam, eps=epsilon)):
        outcomes = train([run] * len(treatments), start_of(run, treatments), dataset(run.network, run.precision))
    return [outcome.history[-1][2] for outcome in outcomes]


def _where(run: Run, treatment: tuple[str, int]) -> tuple:
    name, level = treatment
    return run.network, run.precision, level, name


def first_gradients(dense: list[Run], treatments: list[tuple[str, int]]) -> pd.DataFrame:
    """A row per treatment: means over `dense`, untrained networks of several seeds."""
    rows = [{"seeds": run.seed} | gradient(run, *one) | dict(zip(BY, _where(run, one)))
            for one in treatments for run in dense]  # fmt: skip
    table = pd.DataFrame(rows)
    means = dict.fromkeys(table.columns.drop(BY), "mean") | {"seeds": "nunique"}
    return table.groupby(BY, sort=False).agg(means).reset_index()


def epsilons(dense: list[Run], treatments: list[tuple[str, int]]) -> pd.DataFrame:
    """A row per treatment, seed and epsilon: validation accuracy in % after training."""
    rows = [
        (*_where(run, one), run.iterations, epsilon, run.seed, accuracy)
        for run in dense
        for epsilon in EPSILONS
        for one, accuracy in zip(treatments, learned(run, treatments, epsilon))
    ]
    return pd.DataFrame(rows, columns=[*BY, "iterations", "epsilon", "seed", "validation_accuracy"])


def main() -> None:
    """Measure, train, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="conv6", choices=list(NETWORKS))
    parser.add_argument("--criteria", nargs="+", default=CHOICES, choices=CHOICES)
    parser.add_argument("--rounds", nargs="+", type=int, default=ROUNDS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--precision", default="bf16", choices=["fp32", "bf16"])
    parser.add_argument("--iterations", type=int, help="of training; without, the first batch alone")
    options = parser.parse_args()
    given = {"networks": [options.network], "seeds": options.seeds, "precision": options.precision}
    length = options.iterations or 1
    scale = settings("evening", **given, iterations=length, eval_every=length)
    dense = [run for run in sweep(scale) if run.round == 0]
    treatments = [(name, level) for name in options.criteria for level in options.rounds]
    found = (epsilons if options.iterations else first_gradients)(dense, treatments)
    print(found.to_string(index=False))
    name, by = ("adam_epsilon", [*BY, "iterations"]) if options.iterations else ("first_gradient", BY)
    keep(results_folder("bench") / f"{name}.csv", found, by)


if __name__ == "__main__":
    main()
