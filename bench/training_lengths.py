"""Do differences between criteria and actions pass with longer training? Where a claim fails after a short one.

    python -m bench.training_lengths --network fc --iterations 70 140 350 700 1400 5600
    python -m bench.training_lengths --network conv2 --seeds 0 1 --iterations 500 2000 20250
    python -m bench.training_lengths --network conv4 --seeds 0 --iterations 25500 --treatments movement

A dense network is pruned at once to the density of the paper's 12th round and trained again, for as long, under each
treatment; validation is read twenty times. A row per length, pair of treatments and seed in
results/bench/training_lengths.csv: by how many points of test accuracy the one is ahead of the other. Other rows stay,
so that a seed can be added; all of the same precision are drawn in figures/bench/training_lengths.png.
"""

import argparse
from collections.abc import Collection

import pandas as pd
import seaborn as sns

from bench.common import keep
from lt_utils import tables
from lt_utils.inference import interval
from lt_utils.lottery import run
from lt_utils.networks import NETWORKS, title
from lt_utils.notebook import figures_folder, results_folder, save_png
from lt_utils.profiles import Settings, settings
from lt_utils.runs import sweep

ROUND = 12  # of the paper; the differences are the larger, the deeper the pruning
EVALUATIONS = 20
TICKET = "winning ticket"  # large_final, rewind, zero
TREATMENTS = {  # what differs from it
    TICKET: {},
    "reinit_same_sign": {"mask1": "reinit_same_sign"},
    "reshuffle_same_sign": {"mask1": "reshuffle_same_sign"},
    "movement": {"criterion": "movement"},
    "variant_1": {"mask0": "variant_1"},
    "variant_2": {"mask0": "variant_2"},
}
PAIRS = (
    ("reinit_same_sign", TICKET),
    ("reshuffle_same_sign", TICKET),
    ("variant_1", TICKET),
    ("variant_2", "variant_1"),
    ("movement", TICKET),
)
BY = ["network", "iterations", "precision", "treatment", "beside"]
LENGTH, AHEAD, PAIR = "training, % of the paper's length", "points of test accuracy ahead", "treatments"


def scale_of(length: int | str, network: str, seeds: list[int] | None, precision: str) -> Settings:
    """A profile's, by its name; or, by a number of iterations, that of a dense network which is pruned once, to the
    density of the paper's 12th round. Without `seeds` the profile's."""
    common = {"networks": [network], "seeds": seeds, "precision": precision}
    if isinstance(length, str):
        return settings(length, **common)
    eval_every = max(length // EVALUATIONS, 1)
    return settings("evening", rounds=1, stride=ROUND, iterations=length, eval_every=eval_every, **common)


def compare(
    network: str, seeds: list[int], iterations: int, precision: str, treatments: Collection[str]
) -> pd.DataFrame:
    """A row per pair of treatments, of those that set one of `treatments` beside another, and seed."""
    pairs = [pair for pair in PAIRS if pair[0] in treatments]
    needed = {name: TREATMENTS[name] for pair in pairs for name in pair}
    s = scale_of(iterations, network, seeds, precision)
    named = {one.key: name for name, axes in needed.items() for one in sweep(s, **axes) if one.round}
    table = run([one for axes in needed.values() for one in sweep(s, **axes)])
    pruned = table[table["round"] == 1].assign(treatment=table["key"].map(named))
    accuracy = pruned.pivot(index="seed", columns="treatment", values="test_accuracy")
    found = []
    for treatment, beside in pairs:
        rows = accuracy[[treatment, beside]].set_axis(["accuracy", "accuracy beside"], axis=1).reset_index()
        rows["difference"] = rows["accuracy"] - rows["accuracy beside"]
        same = dict(zip(BY, (network, iterations, precision, treatment, beside)))
        found.append(rows.assign(**same, weights_remaining=pruned["weights_remaining"].mean()))
    columns = ["seed", "weights_remaining", "accuracy", "accuracy beside", "difference"]
    return pd.concat(found)[[*BY, *columns]]


def summary(found: pd.DataFrame) -> pd.DataFrame:
    """Mean differences with their 95 % t intervals over seeds."""
    each = found.groupby(BY, sort=False)["difference"]
    bounds = pd.DataFrame(each.apply(interval).tolist(), columns=["low", "high"])
    return each.agg(seeds="count", difference="mean").reset_index().join(bounds)


def draw(found: pd.DataFrame) -> None:
    """Differences by length of training: mean and range of seeds, a panel per network."""
    lengths = found["network"].map(lambda name: NETWORKS[name].iterations)
    shown = found.assign(
        **{
            LENGTH: 100 * found["iterations"] / lengths,
            AHEAD: found["difference"],
            PAIR: found["treatment"] + " over " + found["beside"],
            "network": found["network"].map(title),
        }
    )
    grid = sns.relplot(
        shown,
        kind="line",
        x=LENGTH,
        y=AHEAD,
        col="network",
        hue=PAIR,
        style=PAIR,
        palette="colorblind",
        markers=True,
        dashes=False,
        errorbar=("pi", 100),
        height=3.8,
        aspect=1.2,
        facet_kws={"sharey": False},
    )
    grid.set(xscale="log").set_titles("{col_name}")
    for axes in grid.axes.flat:
        axes.axhline(0, color="black", linewidth=0.8)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.grid(alpha=0.3)
    save_png(grid.figure, figures_folder("bench") / "training_lengths.png", dpi=110)


def main() -> None:
    """Train what is missing, print, write and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="fc", choices=list(NETWORKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--iterations", nargs="+", type=int, default=[70, 140, 350, 700, 1400])
    parser.add_argument("--precision", default="bf16", choices=["fp32", "bf16"])
    compared = [treatment for treatment, _ in PAIRS]
    parser.add_argument("--treatments", nargs="+", default=compared, choices=compared)
    options = parser.parse_args()
    path = results_folder("bench") / "training_lengths.csv"
    for iterations in options.iterations:
        rows = compare(options.network, options.seeds, iterations, options.precision, options.treatments)
        keep(path, rows, [*BY, "seed"])
        found = tables.read(path).query("precision == @options.precision")
        same = found.query("network == @options.network and iterations == @iterations")
        print(summary(same).round(2).to_string(index=False), flush=True)
    draw(found)


if __name__ == "__main__":
    main()
