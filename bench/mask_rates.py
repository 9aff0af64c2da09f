"""Search for the learning rate of learned supermasks, which the paper does not give for the convolutional networks.

    python -m bench.mask_rates --networks conv2 conv4 --rates 300 1000 3000 --epochs 1

A row per network, rate and variant in results/bench/mask_rates.csv: validation accuracy after the last epoch, mean over
seeds. Rows of other networks stay as they are. The test set has no say.
"""

import argparse

import pandas as pd

from bench.common import keep
from lt_utils import store
from lt_utils.lottery import run
from lt_utils.networks import NETWORKS
from lt_utils.notebook import results_folder
from lt_utils.profiles import settings
from lt_utils.runs import sweep

ACTIONS = ["rewind", "constant_same_sign"]


def search(network: str, rates: list[float], epochs: int, seeds: int) -> pd.DataFrame:
    """Validation accuracy in % per rate and variant."""
    s = settings("quick", networks=[network], seeds=seeds, mask_epochs=epochs, mask_eval_every=10**6, test_images=100)
    rows = []
    for rate in rates:
        for one in sweep(s, kind="learned", mask1=ACTIONS, dwr=[False, True], learning_rate=[rate]):
            table = run([one])
            rows.append(
                {
                    "network": network,
                    "rate": rate,
                    "weights": one.mask1,
                    "dwr": one.dwr,
                    "epochs": epochs,
                    "seeds": seeds,
                    "precision": one.precision,
                    "validation_accuracy": float(table["mean_validation_accuracy"][0]),  # of its only one
                    "machine": table["device"][0],
                }
            )
            print(rows[-1], flush=True)
    found = pd.DataFrame(rows)
    by = [name for name in found if name not in ("validation_accuracy",)]
    return found.groupby(by, sort=False, as_index=False)["validation_accuracy"].mean()


def main() -> None:
    """Search, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--rates", nargs="+", type=float, default=[100.0, 300.0, 1000.0, 3000.0])
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    path = results_folder("bench") / "mask_rates.csv"
    for network in options.networks:
        found = search(network, options.rates, options.epochs, options.seeds)
        keep(path, found, ["network"])
        mean = found.groupby("rate")["validation_accuracy"].mean()
        print(mean.round(1).to_string(), f"\nbest mean over the variants: {mean.idxmax():g}; store: {store.folder()}")


if __name__ == "__main__":
    main()
