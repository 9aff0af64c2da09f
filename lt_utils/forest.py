"""The scorecard's figure, a forest plot: every claim's difference with its interval."""

from textwrap import wrap
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from lt_utils.networks import NETWORKS, title

VERDICT_COLOURS = {"reproduced": "#0072B2", "contradicted": "#D55E00", "inconclusive": "0.5"}
SHORT = {"evening": ("s", "square: short (evening)"), "quick": ("^", "triangle: short (quick)")}
WIDTH = 64  # letters of a label in one line
SECTIONS = {
    "LTH": "Lottery tickets (LTH)",
    "DLT 2": "Mask criteria (DLT 2)",
    "DLT 3": "Mask-1 actions (DLT 3)",
    "DLT 4": "Mask-0 actions (DLT 4)",
    "DLT 5": "Found supermasks (DLT 5)",
    "DLT 5.2": "Learned supermasks (DLT 5.2)",
}


def scorecard(table: pd.DataFrame) -> Figure:
    """Every claim's difference in points, a line each under its section and a panel per network, with its 95 % interval
    over seeds (if there are two or more), coloured by its verdict; filled where the verdict survives the adjustment for
    the number of claims. Grey bars are margins of equality. Where the table says from which scale a claim is, those of
    short trainings have markers of their own."""
    here = table[(table["unit"] == "points") & (table["seeds"] > 0)]
    sections = here["source"].str.removesuffix(" (?)").map(SECTIONS)
    lines: list[str] = []  # from top to bottom: a section's name, or a claim
    for section in [name for name in SECTIONS.values() if name in set(sections)]:
        lines += [section, *here.loc[sections == section, "claim"].unique()]
    place = {line: i for i, line in enumerate(lines)}
    networks = [name for name in NETWORKS if name in set(here["network"])] or [None]
    size = (5.2 + max(4.4, 2.1 * len(networks)), 1.6 + 0.26 * max(4, len(lines)))
    figure, panels = plt.subplots(1, len(networks), figsize=size, layout="constrained", sharey=True, squeeze=False)
    reach = 1.3 * max(2.0, here["difference"].abs().max() if len(here) else 0.0)
    for axes, network in zip(panels[0], networks):
        for i, line in enumerate(lines):
            if line in SECTIONS.values():
                axes.axhspan(i - 0.5, i + 0.5, color="#EAF1F7", zorder=0)
        for row in here[here["network"] == network].itertuples():
            _interval(axes, place[row.claim], row, reach)
        axes.set_xscale("symlog", linthresh=1)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axes.set(xlim=(-reach, reach), title=title(network) if network else "")
        axes.axvline(0, color="black", linewidth=0.8)
        axes.grid(axis="x", alpha=0.3)
        axes.tick_params(axis="y", length=0)
    labels = panels[0, 0].set_yticks(range(len(lines)), [_label(line) for line in lines], fontsize=7.5)
    for line, tick in zip(lines, labels):
        tick.label1.set(fontweight="bold" if line in SECTIONS.values() else "normal", linespacing=1.0)
    panels[0, 0].set_ylim(len(lines) - 0.2, -0.8)
    for verdict, colour in VERDICT_COLOURS.items():
        panels[0, 0].plot([], [], "o-", color=colour, markerfacecolor="white", label=verdict)
    panels[0, 0].plot([], [], "o", color="black", label="filled: also after Holm")
    for scale, (marker, label) in SHORT.items():
        if scale in set(here.get("scale", [])):
            panels[0, 0].plot([], [], marker, color="black", markerfacecolor="white", label=label)
    figure.supxlabel("difference (points), mean over seeds and 95 % interval", fontsize=10)
    figure.legend(loc="outside upper center", ncols=6, fontsize=8)
    return figure


def _label(line: str) -> str:
    """A label in as few lines as it takes, about equally long; numbers stay with their %."""
    words = line.replace(" %", "\N{NO-BREAK SPACE}%")
    narrowest = next(width for width in range(1, WIDTH + 1) if len(wrap(words, width)) == len(wrap(words, WIDTH)))
    return "\n".join(wrap(words, narrowest)).replace("\N{NO-BREAK SPACE}", " ")


def _interval(axes: Axes, height: float, row: Any, reach: float) -> None:
    """A claim's margin of equality, interval and difference."""
    colour = VERDICT_COLOURS[row.verdict]
    if row.margin == row.margin:
        axes.barh(height, 2 * row.margin, left=-row.margin, height=0.8, color="0.9", zorder=0)
    if row.seeds > 1:
        ends = [max(row.low, -reach), min(row.high, reach)]
        axes.plot(ends, [height] * 2, color=colour, linewidth=1.6, solid_capstyle="butt")
    filled = row.verdict_holm == row.verdict and row.verdict != "inconclusive"
    marker, _ = SHORT.get(getattr(row, "scale", ""), ("o", ""))
    axes.plot(row.difference, height, marker, color=colour, markerfacecolor=colour if filled else "white", markersize=5)
