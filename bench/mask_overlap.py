"""How much are criteria of one mind, and does it depend on how long the dense network was trained?

    python -m bench.mask_overlap --network conv2 --profiles evening overnight --seeds 1 2
    python -m bench.mask_overlap --network fc --profiles quick overnight --seeds 1 2
    python -m bench.mask_overlap --network conv4 --iterations 25500 --seeds 0 --precision bf16
    python -m bench.mask_overlap --network conv6 --profiles evening --seeds 0 1 2 --precision bf16

Of the largest layer, pruned at once to the density of the paper's 6th, 12th and 18th round: which share of the weights
that `large_final` keeps does another criterion keep, too (at chance: the density)? How far have the layer's weights
gone, and how large are those that `large_final` keeps at their start, beside all? A row per length of training, round
and criterion in results/bench/mask_overlap.csv: means over seeds. Other rows stay. With `--iterations` the dense
networks are not a profile's, but those of `bench.training_lengths` after trainings of these lengths.
"""

import argparse
import math

import pandas as pd

from bench.common import keep
from bench.training_lengths import scale_of
from lt_utils.networks import NETWORKS
from lt_utils.notebook import results_folder, sample_weights
from lt_utils.profiles import PROFILES, Settings

ROUNDS = (6, 12, 18)
OTHERS = ["magnitude_increase", "movement", "large_init_large_final", "large_init"]
BY = ["network", "iterations", "precision", "round", "criterion"]


def measure(s: Settings, level: int) -> pd.DataFrame:
    """A row per criterion, of the dense network of `s`, which has one seed, pruned to the density of a round."""
    ((network,), (seed,)) = s.scale.networks, s.seeds
    sizes = [math.prod(layer.shape) for layer in NETWORKS[network].layers]
    weights = sample_weights(s, ["large_final", *OTHERS], sizes.index(max(sizes)), level, max(sizes))
    sigma, sizes_at_start = weights["w_i"].std(), weights["w_i"].abs()
    where = (network, s.iterations(network), s.precision(network), level)
    rows = pd.DataFrame([(*where, name) for name in OTHERS], columns=BY)
    shared = weights.loc[weights["large_final"] == 1, OTHERS].mean()
    return rows.assign(
        kept_percent=100 * weights["large_final"].mean(),
        shared_percent=100 * shared.to_numpy(),
        moved_std=(weights["w_f"] - weights["w_i"]).std() / sigma,  # in standard deviations of the start, as are these:
        start_kept_std=sizes_at_start[weights["large_final"] == 1].mean() / sigma,
        start_all_std=sizes_at_start.mean() / sigma,
        seeds=seed,
    )


def main() -> None:
    """Train what is missing, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="conv2", choices=list(NETWORKS))
    parser.add_argument("--profiles", nargs="+", default=["evening", "overnight"], choices=list(PROFILES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--iterations", nargs="+", type=int, help="of dense networks, instead of the profiles'")
    options = parser.parse_args()
    for length in options.iterations or options.profiles:
        scales = [scale_of(length, options.network, [seed], options.precision) for seed in options.seeds]
        each = pd.concat([measure(s, level) for level in ROUNDS for s in scales])
        numbers = ["kept_percent", "shared_percent", "moved_std", "start_kept_std", "start_all_std"]
        means = dict.fromkeys(numbers, "mean") | {"seeds": "nunique"}
        found = each.groupby(BY, sort=False).agg(means).reset_index()
        print(found.round(2).to_string(index=False), flush=True)
        keep(results_folder("bench") / "mask_overlap.csv", found, BY)


if __name__ == "__main__":
    main()
