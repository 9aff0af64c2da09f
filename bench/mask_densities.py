"""How much does a coarse grid of densities cost the best found supermask? The paper takes the best of all 25.

    python -m bench.mask_densities

Read off the masks in results/paper/04_supermasks_NETWORK.csv, which are of every density. A row per network, criterion,
kind of weights and seed in results/bench/mask_densities.csv: test accuracy of the best mask among all densities, among
every second, fourth and sixth, and what the best one keeps.
"""

import pandas as pd

from lt_utils import tables
from lt_utils.notebook import results_folder

CRITERIA = ["large_final", "large_final_same_sign", "magnitude_increase_same_sign"]
GRIDS = {"every density": 1, "every second": 2, "every fourth": 4, "every sixth": 6}
EACH = ["network", "iterations", "precision", "criterion", "mask1", "seed"]


def best_of(table: pd.DataFrame) -> pd.DataFrame:
    """A row per criterion, kind of weights and seed of a table of found supermasks of every density: the best accuracy
    on each grid, and the percentage of weights that the best of all keeps."""
    grids = {
        name: table[table["round"] % every == 0].groupby(EACH)["test_accuracy"].max() for name, every in GRIDS.items()
    }
    best = table.loc[table.groupby(EACH)["test_accuracy"].idxmax()].set_index(EACH)["weights_remaining"]
    return pd.DataFrame({**grids, "best at, % of the weights": best}).reset_index()


def main() -> None:
    """Print the mean over seeds, and write."""
    found = best_of(tables.kept(results_folder("paper"), "04_supermasks").query("criterion in @CRITERIA"))
    means = found.groupby(EACH[:-1])
    shown = means[list(GRIDS)].mean().round(1).assign(seeds=means.size())
    print(shown.to_string(), flush=True)
    tables.write(results_folder("bench") / "mask_densities.csv", found)


if __name__ == "__main__":
    main()
