"""Does dropout cost a dense network less, the longer it trains? Where its claims fail after a short training.

    python -m bench.dropout_lengths --network fc --seeds 5 --iterations 5600 --every 140
    python -m bench.dropout_lengths --network conv2 --seeds 3 --iterations 1000 --every 250

A row per evaluation and seed in results/bench/dropout_lengths.csv: validation accuracy without and with dropout of 0.5
in the course of one training each, which is the same whatever its length. Rows of other trainings stay.
"""

import argparse

import pandas as pd

from bench.common import curves, keep
from lt_utils.networks import NETWORKS
from lt_utils.notebook import results_folder
from lt_utils.profiles import settings
from lt_utils.runs import sweep

RATE = 0.5
BY = ["network", "precision", "length"]


def compare(network: str, seeds: int, iterations: int, every: int, precision: str) -> pd.DataFrame:
    """A row per evaluation and seed."""
    s = settings(
        "evening", networks=[network], seeds=seeds, iterations=iterations, eval_every=every, precision=precision
    )
    runs = [run for run in sweep(s, dropout=[0.0, RATE]) if run.round == 0]
    read = pd.DataFrame(
        [
            {"seed": run.seed, "iteration": int(at), "with": run.dropout > 0, "accuracy": accuracy}
            for run, curve in zip(runs, curves(runs))
            for at, _, accuracy in curve
        ]
    )
    found = read.pivot(index=["iteration", "seed"], columns="with", values="accuracy")
    found = found.set_axis(["accuracy", "accuracy with dropout"], axis=1).reset_index()
    found["difference"] = found["accuracy with dropout"] - found["accuracy"]
    return found.assign(network=network, precision=precision, length=iterations)[[*BY, *found.columns]]


def main() -> None:
    """Train what is missing, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="fc", choices=list(NETWORKS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=5600)
    parser.add_argument("--every", type=int, default=140, help="iterations between two evaluations")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    options = parser.parse_args()
    found = compare(options.network, options.seeds, options.iterations, options.every, options.precision)
    differences = found.groupby("iteration")["difference"].agg(["count", "mean", "min", "max"])
    print(differences.round(2).to_string(), flush=True)
    keep(results_folder("bench") / "dropout_lengths.csv", found, BY)


if __name__ == "__main__":
    main()
