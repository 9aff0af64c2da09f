"""Do matrix products in bf16 harm accuracy? The same trainings in fp32 and in bf16, paired by seed.

    python -m bench.precision --networks fc conv2 --seeds 10 3
    python -m bench.precision --profile paper --networks fc --seeds 5

A row per network and length of training in results/bench/precision.csv: mean test accuracies, the mean paired
difference with its 95 % t interval, and the standard deviation between seeds that it is to be seen beside. Other rows
stay.
"""

import argparse

import pandas as pd

from bench.common import keep
from lt_utils.claims import interval
from lt_utils.lottery import run
from lt_utils.networks import NETWORKS
from lt_utils.notebook import results_folder
from lt_utils.profiles import PROFILES, settings
from lt_utils.runs import sweep


def compare(profile: str, network: str, seeds: int, iterations: int | None) -> dict[str, object]:
    """Dense trainings of a network in both precisions."""
    accuracy = {}
    for precision in ("fp32", "bf16"):
        s = settings(profile, networks=[network], seeds=seeds, iterations=iterations, precision=precision)
        table = run(sweep(s, round=[0]))
        accuracy[precision] = table.set_index("seed")["test_accuracy"]
    difference = accuracy["bf16"] - accuracy["fp32"]
    low, high = interval(difference)
    return {
        "network": network,
        "iterations": int(table["iterations"][0]),
        "seeds": seeds,
        "fp32": accuracy["fp32"].mean(),
        "bf16": accuracy["bf16"].mean(),
        "difference": difference.mean(),
        "low": low,
        "high": high,
        "std between seeds (fp32)": accuracy["fp32"].std(),
        "machine": table["device"][0],
    }


def main() -> None:
    """Compare, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["fc", "conv2"], choices=list(NETWORKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[10, 3], help="a number for each network")
    parser.add_argument("--profile", default="quick", choices=list(PROFILES))
    parser.add_argument("--iterations", type=int, help="the profile's own by default")
    options = parser.parse_args()
    if len(options.seeds) != len(options.networks):
        parser.error("give as many --seeds as --networks")
    found = pd.DataFrame(
        [compare(options.profile, n, s, options.iterations) for n, s in zip(options.networks, options.seeds)]
    )
    path = results_folder("bench") / "precision.csv"
    keep(path, found, ["network", "iterations"])
    print(found.round(3).to_string(index=False))


if __name__ == "__main__":
    main()
