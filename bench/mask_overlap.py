"""How much are criteria of one mind, and does it depend on how long the dense network was trained?

    python -m bench.mask_overlap --network conv2 --profiles evening overnight --seeds 1 2

Of the largest layer, pruned at once to the density of the paper's 6th and 18th round: which share of the weights that
`large_final` keeps does another criterion keep, too (at chance: the density)? And how far have its weights gone? A row
per length of training, density and criterion in results/bench/mask_overlap.csv: means over seeds. Other rows stay.
"""

import argparse

import pandas as pd
from torch import Tensor

from bench.common import keep
from lt_utils.criteria import CRITERIA
from lt_utils.lottery import execute
from lt_utils.networks import NETWORKS
from lt_utils.notebook import results_folder
from lt_utils.profiles import PROFILES, settings
from lt_utils.runs import Run, sweep
from lt_utils.starts import finished_weights

ROUNDS = (6, 18)
OTHERS = ("magnitude_increase", "movement", "large_init_large_final", "large_init")


def _kept(criterion: str, w_i: Tensor, w_f: Tensor, count: int) -> set[int]:
    """The weights of a layer that a criterion scores highest."""
    return set(CRITERIA[criterion](w_i, w_f).flatten().topk(count).indices.tolist())


def measure(dense: Run) -> list[dict[str, object]]:
    """A row per density and criterion, of a trained dense network."""
    network = NETWORKS[dense.network]
    start, final, _ = finished_weights(dense)
    i = max(range(len(start)), key=lambda layer: start[layer].numel())
    w_i, w_f, layer = start[i], final[i], network.layers[i]
    rows = []
    for level in ROUNDS:
        density = network.kept[layer.role] ** level
        large = _kept("large_final", w_i, w_f, round(density * w_i.numel()))
        for criterion in OTHERS:
            shared = len(large & _kept(criterion, w_i, w_f, len(large))) / len(large)
            rows.append(
                {
                    "network": dense.network,
                    "iterations": dense.iterations,
                    "density_percent": 100 * density,
                    "criterion": criterion,
                    "shared_percent": 100 * shared,
                    "moved_std": ((w_f - w_i).std() / w_i.std()).item(),  # in standard deviations of the start
                }
            )
    return rows


def main() -> None:
    """Train what is missing, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="conv2", choices=list(NETWORKS))
    parser.add_argument("--profiles", nargs="+", default=["evening"], choices=list(PROFILES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    options = parser.parse_args()
    by = ["network", "iterations", "density_percent", "criterion"]
    for profile in options.profiles:
        s = settings(profile, networks=[options.network], seeds=options.seeds, precision=options.precision)
        dense = sweep(s, criterion=["large_final"], round=[0])
        execute(dense, weights=True)
        seeds = pd.DataFrame([row for run in dense for row in measure(run)])
        found = seeds.groupby(by, sort=False).mean().reset_index().assign(seeds=len(dense), precision=options.precision)
        print(found.round(2).to_string(index=False), flush=True)
        keep(results_folder("bench") / "mask_overlap.csv", found, by)


if __name__ == "__main__":
    main()
