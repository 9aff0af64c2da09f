"""All the runs that the notebooks ask for, read from the notebooks themselves, the most valuable first."""

import json
import os
import re
import sys
import time
from typing import Any

import lt_utils
from lt_utils import lottery, speed, store
from lt_utils.data import ROOT
from lt_utils.networks import NETWORKS
from lt_utils.profiles import choose
from lt_utils.progress import duration
from lt_utils.runs import Run
from notebooks.parameters import values

NOTEBOOKS = ROOT / "notebooks"
ORDER = ("04", "00", "01", "02", "03", "05")  # of the notebooks, by what they give for their time
UNITS = {"s": 1, "m": 60, "h": 3600}


def names() -> list[str]:
    """The notebooks that have runs."""
    return sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb") if _cell(path.stem, "runs"))


def _cell(name: str, tag: str) -> str:
    """The code of a notebook's cell with a tag."""
    cells = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text())["cells"]
    return next(("".join(cell["source"]) for cell in cells if tag in cell["metadata"].get("tags", [])), "")


def declared(name: str) -> dict[str, Any]:
    """The parameters that a notebook declares, with their defaults."""
    namespace: dict[str, Any] = {}
    exec(_cell(name, "parameters"), namespace)
    del namespace["__builtins__"]
    return namespace


def notebook_runs(name: str, profile: str, parameters: dict[str, Any] | None = None) -> list[Run]:
    """The runs of a notebook at a profile, with those of `parameters` that it declares, by its own cells."""
    own = declared(name) | {"profile": profile}
    namespace = own | {key: value for key, value in (parameters or {}).items() if key in own} | {"lt": lt_utils}
    exec(_cell(name, "settings"), namespace)
    exec(_cell(name, "runs"), namespace)
    return namespace["runs"]


def value(name: str, run: Run) -> tuple:
    """Sorts runs by value: all of FC; then supermasks found, then learned, on the others; then the rest, network by
    network; and within these one seed after the other."""
    network = list(NETWORKS).index(run.network)
    group = 0 if run.network == "fc" else {"found": 1, "learned": 2, "train": 2 + network}[run.kind]
    return group, ORDER.index(name[:2]), network, run.seed, run.round


def everything(profile: str, only: list[str], given: list[str]) -> list[Run]:
    """The runs of all notebooks (or of `only`), the most valuable first; `given` are texts like `seeds=3 rounds=9`."""
    parameters = values(given)
    chosen = [name for name in names() if not only or name in only]
    known = sorted({key for name in only or chosen for key in declared(name)})
    for key in parameters:
        choose("parameter", key, known)
    asked = [(value(name, run), run) for name in chosen for run in notebook_runs(name, profile, parameters)]
    return [run for _, run in sorted(asked, key=lambda pair: pair[0])]


def seconds(words: str) -> float:
    """A time budget such as "90s", "30m" or "2.5h", in seconds. ValueError for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", words.strip())
    if not found or not float(found[1]):
        raise ValueError(f"BUDGET={words!r}: give a number and s, m or h, for example 30m.")
    return float(found[1]) * UNITS[found[2]]


def train(profile: str, only: list[str], given: list[str], budget: str | None) -> None:
    """Do what is missing of all notebooks' runs within a budget of time, and say what is left."""
    os.environ.pop("LT_DRAW_ONLY", None)  # which is for the notebooks that come after
    if budget:
        os.environ["LT_DEADLINE"] = str(time.time() + seconds(budget))
    runs = everything(profile, only, given)
    left = lottery.execute(runs)
    every = {run.key: run for run in runs}
    if left:
        print(f"{len(lottery.with_results(every))} of {len(every)} trainings are done. " + cost(left))
        print("The same command goes on from there.")
    else:
        print(f"all {len(every)} trainings are done.")


def cost(left: dict[str, Run]) -> str:
    """What trainings cost, in words, a part per network and kind."""
    device, parts = lottery.default_device(), {}
    for run in left.values():
        number, time_needed = parts.get((run.network, run.kind), (0, 0.0))
        parts[run.network, run.kind] = number + 1, time_needed + speed.estimate(run, device)
    whole = sum(time_needed for _, time_needed in parts.values())
    each = ", ".join(f"{network} {kind} {n} ({duration(s)})" for (network, kind), (n, s) in parts.items())
    again = len(lottery.with_results(left))
    return (
        f"Left: {len(left)}"
        + f" ({again} {lottery.AGAIN})" * bool(again)
        + f", about {duration(whole)} on {store.device_name(device)}: {each}."
        if left
        else "Nothing left."
    )


def price(profile: str, only: list[str], given: list[str]) -> str:
    """What is missing of all notebooks' runs, and what it would cost on this machine, in words; what of it has not been
    measured here is measured first."""
    left = lottery.missing(everything(profile, only, given))
    speed.measure_all(left.values(), lottery.default_device(), say=lambda words: print(words, file=sys.stderr))
    return cost(left)
