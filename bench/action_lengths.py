"""Do differences between mask-1 and mask-0 actions pass with longer training? Where a claim fails after a short one.

    python -m bench.action_lengths --network fc --seeds 5 --iterations 70 140 350 700 1400 5600
    python -m bench.action_lengths --network conv2 --seeds 2 --iterations 500 2000

A dense network is pruned at once to the density of the paper's 12th round and trained again, for as long, under each
action. A row per length and pair of actions in results/bench/action_lengths.csv: the mean difference of their test
accuracies in points, paired by seed, with its 95 % t interval. Other rows stay.
"""

import argparse

import pandas as pd

from bench.common import keep
from lt_utils.inference import interval
from lt_utils.lottery import run
from lt_utils.networks import NETWORKS
from lt_utils.notebook import results_folder
from lt_utils.profiles import fast_precision, settings
from lt_utils.runs import sweep

ROUND = 12  # of the paper; the actions' differences are the larger, the deeper the pruning
PAIRS = (  # `rewind` has zeros where it is pruned, the variants rewind what is kept
    ("reinit_same_sign", "rewind"),
    ("reshuffle_same_sign", "rewind"),
    ("variant_1", "rewind"),
    ("variant_2", "variant_1"),
)
BY = ["network", "iterations", "precision", "action", "beside"]


def compare(network: str, seeds: int, iterations: int, precision: str) -> pd.DataFrame:
    """A row per pair of actions."""
    s = settings(
        "evening",
        networks=[network],
        seeds=seeds,
        rounds=1,
        stride=ROUND,
        iterations=iterations,
        eval_every=max(iterations // 4, 1),
        precision=precision,
    )
    runs = [
        *sweep(s, mask1=["rewind", "reinit_same_sign", "reshuffle_same_sign"]),
        *sweep(s, mask0=["variant_1", "variant_2"]),
    ]
    table = run(runs)
    dense, pruned = table[table["round"] == 0], table[table["round"] == 1]
    pruned = pruned.assign(action=pruned["mask1"].mask(pruned["mask0"] != "zero", pruned["mask0"]))
    accuracy = pruned.pivot(index="seed", columns="action", values="test_accuracy")
    rows = []
    for action, beside in PAIRS:
        difference = accuracy[action] - accuracy[beside]
        low, high = interval(difference)
        rows.append(
            dict(zip(BY, (network, iterations, precision, action, beside)))
            | {
                "weights_remaining": pruned["weights_remaining"].mean(),
                "dense": dense["test_accuracy"].mean(),
                "difference": difference.mean(),
                "low": low,
                "high": high,
                "seeds": len(difference),
            }
        )
    return pd.DataFrame(rows)


def main() -> None:
    """Train what is missing, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="fc", choices=list(NETWORKS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--iterations", nargs="+", type=int, default=[70, 140, 350, 700, 1400])
    parser.add_argument("--precision", default=fast_precision(), choices=["fp32", "bf16"])
    options = parser.parse_args()
    for iterations in options.iterations:
        found = compare(options.network, options.seeds, iterations, options.precision)
        print(found.round(2).to_string(index=False), flush=True)
        keep(results_folder("bench") / "action_lengths.csv", found, BY)


if __name__ == "__main__":
    main()
