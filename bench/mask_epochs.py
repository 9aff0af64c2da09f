"""How long does a learned supermask have to be trained? The paper's plain variant (initial weights, no DWR) by length.

    python -m bench.mask_epochs --network fc --epochs 200 500 2000 --seeds 3

The paper says that it reaches 95 % (Zhou et al. 2019, section 5.2); the authors' code trains for 2,000 epochs. A row
per length in results/bench/mask_epochs.csv: mean test accuracy with its 95 % t interval over seeds, and the mean epoch
of the lowest validation loss. Other rows stay.
"""

import argparse

import pandas as pd

from bench.common import keep
from lt_utils.claims import interval
from lt_utils.lottery import run
from lt_utils.networks import NETWORKS
from lt_utils.notebook import results_folder
from lt_utils.profiles import settings
from lt_utils.runs import sweep


def measure(network: str, epochs: int, seeds: int) -> dict[str, object]:
    """Masks learned for so many epochs on the initial weights."""
    s = settings("overnight", supermasks=True, networks=[network], seeds=seeds, mask_epochs=epochs)
    table = run(sweep(s, kind="learned", mask1=["rewind"], dwr=[False]))
    low, high = interval(table["test_accuracy"])
    return {
        "network": network,
        "epochs": epochs,
        "seeds": len(table),
        "precision": table["precision"][0],
        "test_accuracy": table["test_accuracy"].mean(),
        "low": low,
        "high": high,
        "best_epoch": (table["best_iteration"] / table["iterations"]).mean() * epochs,
        "machine": table["device"][0],
    }


def main() -> None:
    """Train, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="fc", choices=list(NETWORKS))
    parser.add_argument("--epochs", nargs="+", type=int, default=[200, 500, 2000])
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    path = results_folder("bench") / "mask_epochs.csv"
    for epochs in options.epochs:
        found = pd.DataFrame([measure(options.network, epochs, options.seeds)])
        print(found.round(2).to_string(index=False), flush=True)
        keep(path, found, ["network", "epochs"])


if __name__ == "__main__":
    main()
