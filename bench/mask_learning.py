"""How learned supermasks come along: by learning rate, which the paper does not give for the convolutional networks,
and by epochs, of which the authors' code has 2,000 on FC.

    python -m bench.mask_learning --networks conv2 --rates 300 1000 --epochs 20
    python -m bench.mask_learning --networks conv2 --rates 300 --epochs 100 --weights constant_same_sign
    PRECISION=fp32 python -m bench.mask_learning --networks fc --rates 100 --epochs 2000 --seeds 3 \
        --weights rewind --dwr 0

A row per network, rate, variant, length and epoch read in results/bench/mask_learning.csv: validation accuracy (and, of
the newer rows, loss) then, mean over seeds; at the last epoch also test accuracy, at the epoch of lowest validation
loss, with its 95 % t interval, that epoch, and test accuracy at the last. Other rows stay. A rate is chosen by
validation alone. Of each variant's learnings, the one that ends with the best validation accuracy is drawn in
figures/bench/mask_learning.png. Rows with DWR of version 2 are from when the gradient took the factor of rescaling for
a constant; since 3 it does not.
"""

import argparse

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from bench.common import curves, keep
from lt_utils import store, tables
from lt_utils.inference import interval
from lt_utils.networks import NETWORKS, title
from lt_utils.notebook import figures_folder, results_folder, save_png
from lt_utils.paper import COLUMNS, PAPER
from lt_utils.plots import WEIGHTS
from lt_utils.profiles import settings
from lt_utils.runs import DWR_VERSION, sweep
from lt_utils.tables import networks_of

READ = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)  # epochs after which validation is read, beside the last one
TESTED = ["test_accuracy", "best_epoch", "final_test_accuracy"]
BY = ["network", "rate", "weights", "dwr", "results_version", "epochs", "seeds", "precision"]


def learn(
    network: str, rates: list[float], epochs: int, seeds: int, weights: list[str], dwr: list[bool]
) -> pd.DataFrame:
    """Accuracies in % per rate, variant and epoch of learning for `epochs`."""
    s = settings("overnight", supermasks="learned", networks=[network], seeds=seeds, mask_epochs=epochs)
    per_epoch, rows = s.at(network).mask_eval_every, []
    runs = sweep(s, kind="learned", learning_rate=rates, mask1=weights, dwr=dwr)
    for one, curve in zip(runs, curves(runs)):
        metrics = store.metrics(one)
        variant = [one.mask1, one.dwr, one.version]
        learned = dict(zip(BY, [network, one.learning_rate, *variant, epochs, seeds, one.precision]))
        learned["machine"] = metrics["provenance"]["device"]
        for iteration, loss, accuracy in curve:
            epoch, within = divmod(iteration, per_epoch)
            if not within and (epoch in READ or epoch == epochs):
                tested = metrics["metrics"] | {"best_epoch": metrics["metrics"]["best_iteration"] / per_epoch}
                read = {name: tested[name] if epoch == epochs else np.nan for name in TESTED}
                validated = {"validation_accuracy": accuracy, "validation_loss": loss}
                rows.append(learned | {"epoch": int(epoch)} | validated | read)
    each = pd.DataFrame(rows).groupby([*learned, "epoch"], sort=False)
    bounds = pd.DataFrame(each["test_accuracy"].apply(interval).tolist(), columns=["low", "high"])
    bounds = bounds.where(np.isfinite(bounds))  # one seed has none
    return each[["validation_accuracy", "validation_loss", *TESTED]].mean().reset_index().join(bounds)


def draw(found: pd.DataFrame) -> None:
    """Validation accuracy by epochs, a panel per network and a line per variant: of its learnings the one that ends
    best, beside the paper's test accuracy (dotted)."""
    read = found[found["validation_accuracy"].notna() & (found["epochs"] > 1)]
    networks = networks_of(read)
    size = {"figsize": (4.4 * len(networks), 4.8), "squeeze": False, "layout": "constrained"}
    figure, grid = plt.subplots(1, len(networks), **size)
    variants = [(dwr, weights) for dwr in (False, True) for weights in WEIGHTS]
    papers = COLUMNS.index("learned, w_i")  # from there on in the order of `variants`
    for network, axes in zip(networks, grid[0]):
        for i, ((dwr, weights), colour) in enumerate(zip(variants, sns.color_palette("colorblind"))):
            here = read.query("network == @network and weights == @weights and dwr == @dwr")
            for version, own in here.groupby("results_version"):
                constant = dwr and version < DWR_VERSION
                last = own[own["epoch"] == own["epochs"]]
                chosen = last.loc[last["validation_accuracy"].idxmax(), BY]
                line = own[(own[BY] == chosen).all(axis=1)]
                words = WEIGHTS[weights] + ", DWR" * dwr + ", factor constant" * constant
                label = f"{words} (rate {chosen['rate']:g})"
                look = {"color": colour, "marker": "x" if constant else "o", "markersize": 4, "label": label}
                axes.plot(line["epoch"], line["validation_accuracy"], "--" if constant else "-", **look)
            if len(here):
                axes.axhline(PAPER[network][papers + i], color=colour, linestyle=":")
        axes.set(title=title(network), xscale="log", xlabel="epochs", ylabel="validation accuracy (%)")
        ticks = [epoch for epoch in READ if epoch <= read[read["network"] == network]["epoch"].max()]
        axes.set_xticks(ticks, ticks, fontsize=7)
        axes.set_xticks([], minor=True)
        axes.plot([], [], ":", color="0.4", label="the paper's, on test")
        axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.17))
        axes.grid(alpha=0.3)
    save_png(figure, figures_folder("bench") / "mask_learning.png", dpi=110)


def main() -> None:
    """Learn what is missing, print, write and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--rates", nargs="+", type=float, default=[100.0, 300.0, 1000.0, 3000.0])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--weights", nargs="+", default=list(WEIGHTS), choices=list(WEIGHTS))
    parser.add_argument("--dwr", nargs="+", type=int, default=[0, 1], choices=[0, 1], help="without, with, or both")
    options = parser.parse_args()
    path, dwr = results_folder("bench") / "mask_learning.csv", [bool(one) for one in options.dwr]
    for network in options.networks:
        found = learn(network, options.rates, options.epochs, options.seeds, options.weights, dwr)
        keep(path, found, BY)
        print(found.drop(columns="machine").round(2).to_string(index=False))
        mean = found.query("epoch == epochs").groupby("rate")["validation_accuracy"].mean()
        print(f"best mean over the variants, on validation: {mean.idxmax():g}", flush=True)
    draw(tables.read(path))


if __name__ == "__main__":
    main()
