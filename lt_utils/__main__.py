"""`python -m lt_utils`: fetch the data, redraw figures, sum up. The Makefile calls this."""

import argparse
import sys

from lt_utils import claims, plan, readme, scorecard, tables
from lt_utils.data import ROOT, DataError, arrays
from lt_utils.lottery import OutOfTime
from lt_utils.notebook import draw, figures_folder, results_folder
from lt_utils.plots import FIGURES
from lt_utils.profiles import PROFILES
from lt_utils.store import StoreError
from lt_utils.workers import WorkerError


def figures(profile: str) -> None:
    """Redraw every figure whose table exists, without training."""
    for name in FIGURES:
        if tables.files(results_folder(profile), name):
            print(draw(name, profile))


def summary(profile: str) -> None:
    """Print what was found: the verdicts of all notebooks, and where the figures lie."""
    try:
        found = scorecard.verdicts(profile)
    except OutOfTime as nothing_yet:
        return print(nothing_yet)
    told = claims.readable(found, digits=1).loc[:, :"after Holm"]
    statements = told.pop("claim")  # last, so that a narrow terminal breaks nothing else
    width = max(map(len, statements), default=0)
    told["claim".ljust(width)] = statements.str.ljust(width)
    lines = ["No claim has been tested yet."] if told.empty else told.to_string(index=False).splitlines()
    print("\n".join(map(str.rstrip, lines)))
    masks, committed = scorecard.supermasks(profile), ROOT / "results" / readme.LABEL
    print("" if masks.empty else f"\n{masks.to_string(na_rep='')}", scorecard.counts(found).to_string(), sep="\n")
    if profile == readme.SCALES[readme.LABEL]:
        apart = scorecard.beside(results_folder(profile), committed).round(2)
        print(f"\nTest accuracies beside those in {committed}, in points:\n{apart.to_string()}")
    print(
        "\n(differences in points of test accuracy, 95 % intervals over seeds)\n"
        f"figures: {figures_folder(profile)}\ntables and executed notebooks: {results_folder(profile)}"
    )


def fetch() -> None:
    """Fetch and verify the data sets."""
    for name in ("mnist", "cifar10"):
        arrays(name)
        print(f"{name}: verified")


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m lt_utils")
    parser.add_argument("command", choices=["figures", "summary", "data", "readme", "train", "cost"])
    parser.add_argument("--profile", default="quick", choices=[*PROFILES, *(f"{name}-custom" for name in PROFILES)])
    parser.add_argument("--budget", help="time, such as 30m")
    parser.add_argument("--only", action="append", default=[], metavar="NOTEBOOK")
    parser.add_argument("-p", dest="given", action="append", default=[], metavar="NAME=VALUE ...")
    options = parser.parse_args()
    try:
        if options.command == "data":
            fetch()
        elif options.command == "train":
            plan.train(options.profile, options.only, options.given, options.budget)
        elif options.command == "cost":
            print(plan.price(options.profile, options.only, options.given))
        elif options.command == "readme":
            readme.write()
        else:
            {"figures": figures, "summary": summary}[options.command](options.profile)
    except (ValueError, DataError, StoreError, WorkerError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
