"""What a notebook does besides running: keep its table, draw its figure, conclude."""

import math
import os
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
import PIL.Image
import torch
from matplotlib.figure import Figure
from pandas.io.formats.style import Styler
from PIL.Image import Dither, Quantize

from lt_utils import claims, plots, store, tables, tickets
from lt_utils.data import ROOT
from lt_utils.forest import VERDICT_COLOURS
from lt_utils.lottery import OutOfTime, execute
from lt_utils.networks import NETWORKS
from lt_utils.profiles import Settings
from lt_utils.runs import Run, sweep
from lt_utils.starts import starting_point

if TYPE_CHECKING:
    from IPython.display import HTML, Image

SAVED_SVG = {"svg.hashsalt": "lt_utils", "svg.fonttype": "none"}
ROUNDING = 0.5  # points; bf16 and fp32 products of one mask differ by less (by 0.05 in results/reference)


def results_folder(label: str) -> Path:
    """Tables and executed notebooks of a profile."""
    return Path(os.environ.get("LT_RESULTS") or ROOT / "results") / label


def figures_folder(label: str) -> Path:
    """Figures of a profile."""
    return Path(os.environ.get("LT_FIGURES") or ROOT / "figures") / label


def publish(name: str, table: pd.DataFrame, settings: Settings) -> "Image":
    """Keep `table` as results/LABEL/NAME_NETWORK.csv, draw figure NAME from it into figures/LABEL, and return the
    picture that lies there.

    Raises ValueError if runs differ in what the notebook does not compare: its figure would average over that.
    """
    from IPython.display import Image  # which a worker need not wait for

    if name in claims.AXES:
        claims.check(name, table)
    tables.keep(results_folder(settings.label), name, table)
    return Image(draw(name, settings.label))


def draw(name: str, label: str) -> Path:
    """Draw figure `name` from its saved table, and write it as PNG and SVG, byte for byte the same each time. Returns
    the path of the former."""
    path = figures_folder(label) / f"{name}.png"
    figure = plots.FIGURES[name](tables.kept(results_folder(label), name))
    save_png(figure, path)
    with matplotlib.rc_context(SAVED_SVG):
        figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    plt.close(figure)  # a notebook would show it beside what it is given
    return path


def save_png(figure: Figure, path: Path, dpi: int = 130) -> None:
    """Write a figure as PNG of 256 colours, a third of the size of one of all colours, which the eye can't tell from
    it. They are chosen by their worst error, not the mean one: a narrow band in the hue of another would mislead."""
    drawn = BytesIO()
    figure.savefig(drawn, dpi=dpi)
    picture = PIL.Image.open(drawn).convert("RGB").quantize(method=Quantize.MAXCOVERAGE, kmeans=1, dither=Dither.NONE)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, optimize=True)


def conclude(name: str, table: pd.DataFrame, settings: Settings) -> Styler:
    """The verdicts on a notebook's claims, kept as results/LABEL/NAME_claims.csv; formatted for reading, under a
    sentence per network that says what agrees with the paper and what does not."""
    found = claims.judge(name, table)
    tables.keep(results_folder(settings.label), f"{name}_claims", found)
    return claims_table(found).set_caption(claims.in_words(found))


def claims_table(judged: pd.DataFrame) -> Styler:
    """Judged claims for reading, verdicts in the colours of the scorecard's figure."""
    shown = full(claims.readable(judged)).set_uuid("claims")  # or its colours are those of other tables, too
    left, claim = ("text-align", "left"), f".col{shown.columns.get_loc('claim')}"
    looks = {
        "caption": [left, ("caption-side", "top"), ("padding-bottom", "1em")],
        "td": [("white-space", "nowrap")],
        claim: [left, ("white-space", "normal")],
    }
    shown.set_table_styles([{"selector": selector, "props": props} for selector, props in looks.items()])
    colours = {verdict: f"color: {colour}" for verdict, colour in VERDICT_COLOURS.items()}
    verdicts = shown.columns.intersection(["verdict", "after Holm"])
    return shown.map(lambda verdict: colours.get(verdict, ""), subset=verdicts)


def full(table: pd.DataFrame, digits: int = 2) -> Styler:
    """A table shown with all of its rows and words, numbers to so many digits, and nothing where there is none, or no
    finite one, as in the interval of a single seed."""
    shown = (
        table.replace([-math.inf, math.inf], math.nan)
        .style.format(precision=digits, na_rep="")
        .format_index(precision=2, axis="columns")
        .set_uuid("table")
    )
    return shown.hide(axis="index") if isinstance(table.index, pd.RangeIndex) else shown


def per_network(table: pd.DataFrame, digits: int = 1) -> "HTML":
    """A table with an index level `network`, shown network by network, each without columns that it has nothing in."""
    from IPython.display import HTML  # which a worker need not wait for

    parts = (part.dropna(axis="columns", how="all") for _, part in table.groupby(level="network", sort=False))
    return HTML("".join(full(part, digits).to_html() for part in parts))


def sample_weights(
    settings: Settings, criteria: list[str], layer: int = 0, level: int = 6, points: int = 3000
) -> pd.DataFrame:
    """(w_i, w_f) of `points` weights of one layer of the first seed's dense network, and which criteria keep them.

    Columns `w_i`, `w_f`, and per criterion 1 (kept) or 0 at one-shot pruning to rate^level.
    """
    network = settings.scale.networks[0]
    dense = next(run for run in sweep(settings) if run.round == 0 and run.network == network)
    if execute([dense], weights=True):  # no time to train it
        drawn = results_folder(settings.label) / "01_criterion_regions.csv"
        if drawn.exists():
            return tables.read(drawn)
        raise OutOfTime("the dense network is not trained yet.")
    start, final, _ = store.weights(dense)
    chosen = torch.randperm(start[layer].numel(), generator=torch.Generator().manual_seed(0))[:points]
    table = pd.DataFrame({"w_i": start[layer].flatten()[chosen], "w_f": final[layer].flatten()[chosen]})
    for name in criteria:
        _, mask = starting_point(
            Run(
                **dense.canonical.describe()
                | {"kind": "found", "schedule": "one_shot", "criterion": name, "round": level}
            )
        )
        table[name] = mask[layer].flatten()[chosen].int().numpy()
    return table


def export(table: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Save the best supermask of each network as results/LABEL/supermask_NETWORK.safetensors, load it back, and set its
    size beside that of a dense checkpoint, and its accuracy beside the table's. A file that is there and has the
    table's accuracy stays: a mask found again from a dense training of another machine is another one. A network that
    there was no time to train again has no file, and no size and no accuracy of one."""
    rows = []
    for network in tables.networks_of(table):
        here = table[table["network"] == network]
        row = here.loc[here["test_accuracy"].idxmax()]
        run = Run.of(row)
        path = results_folder(settings.label) / f"supermask_{network}.safetensors"
        loaded = _supermask_accuracy(path, run)
        there = loaded is not None and abs(loaded - row["test_accuracy"]) <= ROUNDING
        # rows may be committed without the dense network's weights
        if not there and not execute([run.parent], weights=True):
            tickets.save_ticket(run, path)
            loaded = _supermask_accuracy(path, run)
        rows.append(
            {
                "network": network,
                "criterion": run.criterion,
                "weights": plots.WEIGHTS[run.mask1],
                "seed": run.seed,
                "weights remaining (%)": row["weights_remaining"],
                "file (kB)": math.nan if loaded is None else path.stat().st_size / 1000,
                "dense checkpoint (kB)": tickets.dense_bytes(network) / 1000,
                "accuracy in the table": row["test_accuracy"],
                "accuracy when loaded": math.nan if loaded is None else loaded,
            }
        )
    return pd.DataFrame(rows).round(2)


def _supermask_accuracy(path: Path, run: Run) -> float | None:
    """Test accuracy in % of the supermask in a file; None unless it is there, whole, and that of `run`."""
    try:
        if tickets.ticket_run(path).canonical != run.canonical:
            return None
    except (FileNotFoundError, ValueError):
        return None
    return tickets.accuracy(tickets.load_ticket(path), NETWORKS[run.network].dataset, run.test_images)


def accuracies(table: pd.DataFrame, by: str | list[str]) -> pd.DataFrame:
    """Mean test accuracy in % over seeds per value of column `by` (or of several, or of `variant`), a column per
    percentage of weights left; of a sweep that was cut short, what `tables.begun` leaves. Of a network's rows the best
    comes first, where the fewest weights are left.

    Raises ValueError if runs differ in anything else.
    """
    by = [by] if isinstance(by, str) else by
    if "variant" in by:
        table = tables.with_variant(table)
    tables.check_alike(table, by)
    table = tables.begun(table, by)
    remaining = table.groupby(["network", "round"])["weights_remaining"].transform("max").round(2)  # of a round
    wide = table.pivot_table("test_accuracy", ["network", *by], remaining.rename("remaining"))
    wide = wide[sorted(wide.columns, reverse=True)]
    best_first = wide.loc[wide.ffill(axis="columns").iloc[:, -1].sort_values(ascending=False, kind="stable").index]
    there = [name for name in tables.networks_of(table) if name in best_first.index]
    return pd.concat([best_first.loc[[name]] for name in there]).round(1)


def best_supermasks(table: pd.DataFrame) -> pd.DataFrame:
    """Best test accuracy of found supermasks in % over all levels, mean over seeds, per criterion and kind of weights,
    and the number of those seeds: where a sweep was cut short, of those that have the most levels.

    Raises ValueError if runs differ in anything else.
    """
    tables.check_alike(table, ["criterion", "mask1"])
    best = tables.best_masks(table).groupby(level=tables.OF_A_MASK)
    wide = best.mean().unstack("mask1")[list(plots.WEIGHTS)].round(1).rename(columns=plots.WEIGHTS)
    wide = wide.assign(seeds=best.count().unstack("mask1").min(axis=1).astype(int)).rename_axis(columns=None)
    return pd.concat([wide.loc[[n]].sort_values(wide.columns[1], ascending=False) for n in tables.networks_of(table)])
