"""Search for the learning rate of learned supermasks, which the paper does not give for the convolutional networks.

    python -m bench.mask_rates --networks conv2 --rates 300 1000 --epochs 20 --weights constant_same_sign --dwr 1

A row per network, rate, variant and epoch read in results/bench/mask_rates.csv: validation accuracy then, mean over
seeds. Other rows stay as they are. The test set has no say.
"""

import argparse

import pandas as pd

from bench.common import curves, keep
from lt_utils import store
from lt_utils.networks import NETWORKS
from lt_utils.notebook import results_folder
from lt_utils.profiles import settings
from lt_utils.runs import sweep

ACTIONS = ["rewind", "constant_same_sign"]
READ = (1, 2, 5, 10, 20, 50, 100, 200)  # epochs after which validation is read, beside the last one
BY = ["network", "rate", "weights", "dwr", "epochs", "seeds", "precision"]


def search(
    network: str, rates: list[float], epochs: int, seeds: int, weights: list[str], dwr: list[bool]
) -> pd.DataFrame:
    """Validation accuracy in % per rate, variant and epoch."""
    s = settings("overnight", supermasks=True, networks=[network], seeds=seeds, mask_epochs=epochs)
    per_epoch, rows = s.at(network).mask_eval_every, []
    runs = sweep(s, kind="learned", learning_rate=rates, mask1=weights, dwr=dwr)
    for one, curve in zip(runs, curves(runs)):
        device = store.metrics(one)["provenance"]["device"]
        for iteration, _, accuracy in curve:
            epoch, within = divmod(iteration, per_epoch)
            if not within and (epoch in READ or epoch == epochs):
                row = [network, one.learning_rate, one.mask1, one.dwr, int(epoch), seeds, one.precision]
                rows.append(dict(zip(BY, row)) | {"machine": device, "validation_accuracy": accuracy})
    return pd.DataFrame(rows).groupby([*BY, "machine"], sort=False, as_index=False)["validation_accuracy"].mean()


def main() -> None:
    """Search, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--rates", nargs="+", type=float, default=[100.0, 300.0, 1000.0, 3000.0])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--weights", nargs="+", default=ACTIONS, choices=ACTIONS)
    parser.add_argument("--dwr", nargs="+", type=int, default=[0, 1], choices=[0, 1], help="without, with, or both")
    options = parser.parse_args()
    path = results_folder("bench") / "mask_rates.csv"
    for network in options.networks:
        dwr = [bool(one) for one in options.dwr]
        found = search(network, options.rates, options.epochs, options.seeds, options.weights, dwr)
        keep(path, found, BY)
        mean = found.query("epochs == epochs.max()").groupby("rate")["validation_accuracy"].mean()
        print(mean.round(1).to_string(), f"\nbest mean over the variants: {mean.idxmax():g}; store: {store.folder()}")


if __name__ == "__main__":
    main()
