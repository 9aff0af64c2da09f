"""How many signs of a ticket's initial weights does noise turn, and does it depend on how long the network was trained?

    python -m bench.noise_signs --network conv4 --profile evening
    python -m bench.noise_signs --network conv6 --profile evening
    python -m bench.noise_signs --network fc --profile quick
    python -m bench.noise_signs --network conv4 --iterations 25500 --seeds 0

Frankle and Carbin's noise, of so many standard deviations of a layer's initial weights, takes a ticket's advantage
away; where it does not, it may have left the signs. A row per round of a winning ticket and size of noise in
results/bench/noise_signs.csv, means over seeds: the expected percentage of the kept weights, and of all weights, whose
sign it turns. New random weights turn 50. Other rows stay. With `--iterations` it is not a profile's tickets, but the
one of `bench.training_lengths` after a training of that length.
"""

import argparse

import pandas as pd
import torch
from torch import Tensor

from bench.common import keep
from bench.training_lengths import scale_of
from lt_utils import store
from lt_utils.lottery import execute
from lt_utils.networks import NETWORKS, initial_weights
from lt_utils.notebook import results_folder
from lt_utils.profiles import PROFILES, Settings
from lt_utils.runs import sweep

NOISE = (0.5, 2.0, 3.0)
BY = ["network", "iterations", "precision", "round", "noise"]


def turned(network: str, seed: int, noise: float, masks: list[Tensor]) -> float:
    """Expected percentage of the weights of a seed under `masks` (a boolean tensor per layer) whose sign turns when
    Gaussian noise of `noise` standard deviations of its layer's initial weights is added."""
    layers = zip(NETWORKS[network].layers, initial_weights(network, seed), masks)
    chances = [torch.special.ndtr(-w[mask].abs() / (noise * layer.glorot_std)) for layer, w, mask in layers]
    return 100 * torch.cat(chances).mean().item()


def measure(s: Settings) -> pd.DataFrame:
    """A row per round and size of noise, of the one network of `s`: means over seeds."""
    tickets = [run for run in sweep(s) if run.round]
    execute([run for run in tickets if not store.has_mask(run)], weights=True)  # a committed row has no mask
    rows = []
    for run in tickets:
        kept = store.mask(run)
        for noise in NOISE:
            every = [torch.ones_like(mask) for mask in kept]
            percent = [turned(run.network, run.seed, noise, masks) for masks in (kept, every)]
            where = (run.network, run.iterations, run.precision, run.stride * run.round, noise)
            rows.append((*where, store.metrics(run)["metrics"]["weights_remaining"], *percent, run.seed))
    columns = ["weights_remaining", "turned_kept_percent", "turned_any_percent", "seeds"]
    means = dict.fromkeys(columns[:-1], "mean") | {"seeds": "nunique"}
    return pd.DataFrame(rows, columns=[*BY, *columns]).groupby(BY, sort=False).agg(means).reset_index()


def main() -> None:
    """Train what is missing, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="conv4", choices=list(NETWORKS))
    parser.add_argument("--profile", default="evening", choices=list(PROFILES))
    parser.add_argument("--seeds", nargs="+", type=int, help="the profile's, unless given")
    parser.add_argument("--precision", default="bf16", choices=["fp32", "bf16"])
    parser.add_argument("--iterations", type=int, help="of a dense network that is pruned once, instead of a profile's")
    options = parser.parse_args()
    length = options.iterations or options.profile
    found = measure(scale_of(length, options.network, options.seeds, options.precision))
    print(found.round(1).to_string(index=False))
    keep(results_folder("bench") / "noise_signs.csv", found, BY)


if __name__ == "__main__":
    main()
