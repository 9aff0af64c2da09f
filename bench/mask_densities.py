"""How much does a coarse grid of densities cost the best found supermask? The paper takes the best of all 25.

    python -m bench.mask_densities --network conv2 --seeds 3

Masks of every density of the paper are put on untrained weights; the dense networks are those of
bench/training_lengths.py. A row per criterion, kind of weights and seed in results/bench/mask_densities.csv: test
accuracy of the best mask among all densities, among every second, fourth and sixth, and what the best one keeps. Rows
of other trainings stay.
"""

import argparse

import pandas as pd

from bench.common import keep
from bench.training_lengths import EVALUATIONS
from lt_utils.lottery import run
from lt_utils.networks import NETWORKS
from lt_utils.notebook import results_folder
from lt_utils.plots import WEIGHTS
from lt_utils.profiles import settings
from lt_utils.runs import sweep

CRITERIA = ["large_final", "large_final_same_sign", "magnitude_increase_same_sign"]
GRIDS = {"every density": 1, "every second": 2, "every fourth": 4, "every sixth": 6}
BY = ["network", "iterations", "precision"]
EACH = [*BY, "criterion", "mask1", "seed"]


def best_of(table: pd.DataFrame) -> pd.DataFrame:
    """A row per criterion, kind of weights and seed of a table of found supermasks of every density: the best accuracy
    on each grid, and the percentage of weights that the best of all keeps."""
    grids = {
        name: table[table["round"] % every == 0].groupby(EACH)["test_accuracy"].max() for name, every in GRIDS.items()
    }
    best = table.loc[table.groupby(EACH)["test_accuracy"].idxmax()].set_index(EACH)["weights_remaining"]
    return pd.DataFrame({**grids, "best at, % of the weights": best}).reset_index()


def main() -> None:
    """Train and evaluate what is missing, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="conv2", choices=list(NETWORKS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--iterations", type=int, help="of the dense training; the network's full length if not given")
    parser.add_argument("--precision", default="bf16", choices=["fp32", "bf16"])
    options = parser.parse_args()
    iterations = options.iterations or NETWORKS[options.network].iterations
    s = settings(
        "paper",
        supermasks=True,
        networks=[options.network],
        seeds=options.seeds,
        iterations=iterations,
        eval_every=max(iterations // EVALUATIONS, 1),
        precision=options.precision,
    )
    found = best_of(run(sweep(s, kind="found", criterion=CRITERIA, mask1=list(WEIGHTS))))
    print(found.round(1).to_string(index=False), flush=True)
    keep(results_folder("bench") / "mask_densities.csv", found, BY)


if __name__ == "__main__":
    main()
