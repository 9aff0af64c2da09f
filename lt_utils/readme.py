"""The results that README.md shows: copied from a finished `make reproduce`, and its tables written from the copies."""

import shutil
from pathlib import Path

import nbformat
import pandas as pd

from lt_utils import scorecard
from lt_utils.data import ROOT
from lt_utils.notebook import figures_folder, results_folder

LABEL = "reference"
BEGIN, END = "<!-- tables: written by `make readme` -->", "<!-- end of tables -->"


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


def _markdown(table: pd.DataFrame) -> str:
    lines = [list(table.columns), ["---"] * len(table.columns), *table.astype(str).values.tolist()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def tables() -> str:
    """The README's tables, in Markdown: the count of verdicts, the supermasks beside the paper's, and every verdict."""
    judged = scorecard.verdicts(LABEL)
    interval = "difference (95 % interval)"
    judged[interval] = [
        "" if pd.isna(row.difference)
        else f"{row.difference:+.1f}" + ("" if row.seeds < 2 else f" ({row.low:+.1f} to {row.high:+.1f})")
        for row in judged.itertuples()
    ]  # fmt: skip
    judged = judged.rename(columns={"verdict_holm": "after Holm"})
    shown = judged[["network", "source", "claim", interval, "seeds", "verdict", "after Holm"]]
    counted = scorecard.counts(scorecard.verdicts(LABEL))
    counted.columns = [f"{verdict}, {how}" for how, verdict in counted.columns]
    masks = scorecard.supermasks(LABEL).map(lambda value: "" if pd.isna(value) else f"{value:.1f}")
    masks.insert(0, "network", [", ".join(index) for index in masks.index])
    return "\n\n".join([_markdown(masks), _markdown(counted.reset_index()), _markdown(shown)])


def render(text: str) -> str:
    """README `text` with its tables as they should be."""
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}\n\n{tables()}\n\n{END}{rest.split(END)[1]}"


def write(profile: str) -> None:
    """Collect a profile's results and bring README.md up to date with them."""
    collect(profile)
    readme = ROOT / "README.md"
    readme.write_text(render(readme.read_text()))
