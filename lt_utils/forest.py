"""The scorecard's figure, a forest plot: every claim's difference with its interval."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from lt_utils.networks import title

VERDICT_COLOURS = {"reproduced": "#0072B2", "contradicted": "#D55E00", "inconclusive": "0.5"}
SECTIONS = {
    "LTH": "Lottery tickets (LTH)",
    "DLT 2": "Mask criteria (DLT 2)",
    "DLT 3": "Mask-1 actions (DLT 3)",
    "DLT 4": "Mask-0 actions (DLT 4)",
    "DLT 5": "Found supermasks (DLT 5)",
    "DLT 5.2": "Learned supermasks (DLT 5.2)",
}


def scorecard(table: pd.DataFrame) -> Figure:
    """Every claim's difference in points, under its section, with its 95 % interval over seeds (if there are two or
    more), coloured by its verdict; filled where the verdict survives the adjustment for the number of claims. Grey bars
    are margins of equality."""
    here = table[(table["unit"] == "points") & (table["seeds"] > 0)]
    sections = here["source"].str.removesuffix(" (?)").map(SECTIONS)
    lines: list[str | tuple] = []  # from top to bottom: a section's name, or a claim
    for section in dict.fromkeys(sections):
        lines += [section, *here[sections == section].itertuples()]
    figure, axes = plt.subplots(figsize=(11, 1.6 + 0.27 * max(4, len(lines))), layout="constrained")
    reach = 1.3 * max(2.0, here["difference"].abs().max() if len(here) else 0.0)
    for i, row in enumerate(lines):
        if isinstance(row, str):
            axes.axhspan(i - 0.5, i + 0.5, color="#EAF1F7", zorder=0)
            continue
        colour = VERDICT_COLOURS[row.verdict]
        if row.margin == row.margin:
            axes.barh(i, 2 * row.margin, left=-row.margin, height=0.8, color="0.9", zorder=0)
        if row.seeds > 1:
            ends = [max(row.low, -reach), min(row.high, reach)]
            axes.plot(ends, [i, i], color=colour, linewidth=1.6, solid_capstyle="butt")
        filled = row.verdict_holm == row.verdict and row.verdict != "inconclusive"
        axes.plot(row.difference, i, "o", color=colour, markerfacecolor=colour if filled else "white", markersize=5)
    for verdict, colour in VERDICT_COLOURS.items():
        axes.plot([], [], "o-", color=colour, markerfacecolor="white", label=verdict)
    axes.plot([], [], "o", color="black", label="filled: also after Holm")
    names = [row if isinstance(row, str) else f"{title(row.network)}: {row.claim}" for row in lines]
    labels = axes.set_yticks(range(len(lines)), names, fontsize=7.5)
    for row, tick in zip(lines, labels):
        tick.label1.set_fontweight("bold" if isinstance(row, str) else "normal")
    axes.set_xscale("symlog", linthresh=1)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.set(xlim=(-reach, reach), ylim=(len(lines) - 0.2, -0.8))
    axes.set_xlabel("difference (points), mean over seeds and 95 % interval")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=4, fontsize=8)
    return figure
