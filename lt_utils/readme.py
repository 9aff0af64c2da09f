"""The results that README.md shows: copied from a finished `make reproduce`, and its tables written from the copies."""

import shutil
from pathlib import Path

import nbformat
import pandas as pd

from lt_utils.data import ROOT
from lt_utils.notebook import figures_folder, results_folder

LABEL = "reference"
BEGIN, END = "<!-- tables: written by `make readme` -->", "<!-- end of tables -->"
COLUMNS = ["mask, w_i", "mask, signed const", "learned, w_i", "learned, signed const", "DWR, w_i", "DWR, signed const",
           "trained weights"]  # fmt: skip
# Zhou et al. 2019, table of supermasks: best test accuracy in % over any prune percentage. Only the column "DWR, signed
# const" and the figures of the abstract (FC 86, Conv6 24 and 41) are confirmed by a second source.
PAPER = {
    "fc": (79.3, 86.3, 95.3, 96.4, 97.8, 98.0, 97.7),
    "conv2": (22.3, 37.4, 64.4, 66.3, 65.0, 66.0, 69.2),
    "conv4": (23.7, 39.7, 65.4, 66.2, 71.7, 72.5, 75.4),
    "conv6": (24.0, 41.0, 65.3, 65.4, 76.3, 76.5, 78.3),
}


def collect(profile: str) -> None:
    """Copy tables, figures and executed notebooks (without timings) of a finished profile to the reference folders."""
    results, figures = results_folder(LABEL), figures_folder(LABEL)
    for folder in (results, figures):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    for path in sorted(results_folder(profile).glob("*.csv")):
        shutil.copy(path, results)
    for path in sorted(figures_folder(profile).glob("*.png")):
        shutil.copy(path, figures)
    for path in sorted(results_folder(profile).glob("0?_*.ipynb")):
        nbformat.write(_without_timings(path), results / path.name)


def _without_timings(path: Path) -> nbformat.NotebookNode:
    notebook = nbformat.read(path, as_version=4)
    for part in (notebook, *notebook.cells):
        for key in ("papermill", "execution"):
            part.metadata.pop(key, None)
    return notebook


def supermasks() -> pd.DataFrame:
    """Best test accuracy of supermasks in %, ours and the paper's, a row per network and source."""
    found = pd.read_csv(results_folder(LABEL) / "04_supermasks.csv")
    learned = pd.read_csv(results_folder(LABEL) / "05_learned_supermasks.csv")
    best = (
        found.groupby(["network", "criterion", "mask1", "seed"])["test_accuracy"].max().groupby(level=[0, 1, 2]).mean()
    )
    mean = learned.groupby(["network", "kind", "dwr", "mask1"])["test_accuracy"].mean()
    rows = {}
    for network in found["network"].unique():
        kinds = [
            (network, "learned", dwr, action) for dwr in (False, True) for action in ("rewind", "constant_same_sign")
        ]
        masks = [best[network].unstack("mask1")[action].max() for action in ("rewind", "constant_same_sign")]
        ours = [*masks, *(mean[kind] for kind in kinds), mean[network, "train", False, "rewind"]]
        rows[f"{network}, here"] = [f"{value:.1f}" for value in ours]
        rows[f"{network}, paper"] = [f"{value:.1f}" for value in PAPER[network]]
    return pd.DataFrame.from_dict(rows, orient="index", columns=COLUMNS)


def _markdown(table: pd.DataFrame) -> str:
    lines = [list(table.columns), ["---"] * len(table.columns), *table.astype(str).values.tolist()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def tables() -> str:
    """The README's tables, in Markdown."""
    claims = pd.concat([pd.read_csv(path) for path in sorted(results_folder(LABEL).glob("*_claims.csv"))])
    claims["difference (95 % interval)"] = [
        f"{r.difference:+.1f} ({r.low:+.1f} to {r.high:+.1f})" for r in claims.itertuples()
    ]
    masks = supermasks().rename_axis("network").reset_index()
    shown = claims[["network", "source", "claim", "difference (95 % interval)", "seeds", "verdict"]]
    return f"{_markdown(shown)}\n\n{_markdown(masks)}"


def render(text: str) -> str:
    """README `text` with its tables as they should be."""
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}\n\n{tables()}\n\n{END}{rest.split(END)[1]}"


def write(profile: str) -> None:
    """Collect a profile's results and bring README.md up to date with them."""
    collect(profile)
    readme = ROOT / "README.md"
    readme.write_text(render(readme.read_text()))
