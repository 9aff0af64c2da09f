"""Figures, each drawn from a saved table alone, in the paper's form: weights remaining in % on a log axis from 100 %
down, mean with a band from the lowest to the highest seed, the dense network's accuracy as a reference line."""

from collections.abc import Callable
from functools import partial

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from lt_utils import tables
from lt_utils.actions import MASK0_ACTIONS, MASK1_ACTIONS
from lt_utils.forest import scorecard
from lt_utils.inference import LEVEL, p_of_zero
from lt_utils.networks import NETWORKS, title
from lt_utils.paper import COLUMNS, PAPER
from lt_utils.style import BASELINES, legends, look_of
from lt_utils.tables import DROPOUT, VARIANTS, networks_of

REMAINING, ACCURACY = "weights remaining (%)", "test accuracy (%)"
FAMILIES = {
    "by final weight and movement": [
        "large_final",
        "magnitude_increase",
        "movement",
        "large_init_large_final",
        "small_final",
        "small_init_small_final",
    ],
    "by initial weight alone": ["large_final", "large_init", "small_init"],
    "by sign": [
        "large_final",
        "large_final_same_sign",
        "large_final_diff_sign",
        "magnitude_increase_same_sign",
        "magnitude_increase_diff_sign",
    ],
}
REFERENCE = "random"
TOP = {"mnist": 10.0, "cifar10": 55.0}  # points that the accuracy panels of tickets show
WIDE = 40.0  # points over which lines spread too far for one panel to show the best apart
FEW = 7  # lines that one panel holds
WEIGHTS = {"rewind": "initial weights", "constant_same_sign": "signed constant"}


def _range(values: pd.Series) -> tuple[float, float]:
    return values.min(), values.max()


Panels = list[tuple[str, str, list[str]]]


def _panels(table: pd.DataFrame, hue: str, families: dict[str, list[str]]) -> list[Panels]:
    """Per network, a list of (network, family, names): a panel per family, or one for all names if they are few. Names
    that `families` does not know come in a panel of their own. A family of which nothing but its baseline is there is
    left out, unless the table has nothing else: a sweep cut short has such. Networks with a panel each share a row."""
    rows, alone = [], table[hue].nunique() == 1
    for network in networks_of(table):
        present = list(dict.fromkeys(table.loc[table["network"] == network, hue]))
        known = {REFERENCE}.union(*families.values())
        others = {"others": [name for name in present if name not in known]}
        named = {
            family: [n for n in [*names, REFERENCE] if n in present] for family, names in (families | others).items()
        }
        shared = set(BASELINES) if len(present) <= FEW else {REFERENCE, *BASELINES}
        if len(present) <= FEW:
            named = {"": list(dict.fromkeys(name for names in named.values() for name in names))}
        rows.append([(network, family, names) for family, names in named.items() if set(names) - shared or alone])
    return [row for row in rows if row] if max(map(len, rows)) > 1 else [[panel for row in rows for panel in row]]


def _grid(rows: list[Panels], below: int) -> tuple[Figure, list[tuple[tuple[str, str, list[str]], list[Axes]]]]:
    """A figure with `below` rows of axes per row of panels; each panel with its axes. A network's share an axis."""
    columns, shared = max(map(len, rows)), all(len({network for network, *_ in row}) < 2 for row in rows)
    common = {"figsize": (max(8.0, 4.9 * columns), 1.2 + 3.8 * below * len(rows)), "layout": "constrained"}
    figure, grid = plt.subplots(below * len(rows), columns, squeeze=False, sharey="row" if shared else False, **common)
    panels = []
    for i, row in enumerate(rows):
        block = grid[below * i : below * (i + 1)]
        panels += list(zip(row, block.T))
        for axes in block[:, len(row) :].flat:
            axes.axis("off")
    return figure, panels


def _looks(rows: list[Panels]) -> dict[str, dict]:
    """How the lines of each family look: the same on all networks, also where some of them are missing."""
    names: dict[str, list[str]] = {}
    for _, family, more in (panel for row in rows for panel in row):
        names[family] = list(dict.fromkeys([*names.get(family, []), *more]))
    return {family: look_of(known) for family, known in names.items()}


def percent_axis(axes: Axes) -> None:
    """A log axis of weights remaining, 100 % on the left, labelled in plain percent."""
    axes.set_xscale("log")
    low, high = sorted(axes.get_xlim())
    axes.set_xlim(min(high, 115), low)
    ticks = [t for t in (100, 50, 20, 10, 5, 2, 1, 0.5, 0.2, 0.1) if low <= t <= 100]
    axes.set_xticks(ticks)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(REMAINING)


def _lines(axes: Axes, table: pd.DataFrame, y: str, hue: str, style: dict) -> None:
    """One line per value of `hue`: mean over seeds with a band from lowest to highest."""
    import seaborn as sns  # seconds that a worker need not wait

    order = [value for value in style["palette"] if value in set(table[hue])]
    sns.lineplot(
        table,
        x="weights_remaining",
        y=y,
        hue=hue,
        style=hue,
        hue_order=order,
        style_order=order,
        errorbar=_range,
        err_kws={"alpha": 0.18, "linewidth": 0},
        markersize=5.5,
        ax=axes,
        **style,
    )
    percent_axis(axes)
    axes.grid(alpha=0.3)


def _stars(axes: Axes, table: pd.DataFrame, y: str, hue: str, style: dict) -> None:
    """A star on each point that differs from the baseline's at the same round: paired t test over seeds, p < 0.05."""
    baseline = next((name for name in style["palette"] if name in BASELINES), None)
    values = table[table["round"] > 0].pivot_table([y, "weights_remaining"], ["round", "seed"], hue)
    names = set(values.columns.get_level_values(-1))
    if baseline not in names or len(names) == 1 or table["seed"].nunique() == 1:
        return
    for name in values[y].columns.drop(baseline):
        p = (values[y][name] - values[y][baseline]).dropna().groupby("round").apply(p_of_zero)
        points = values.xs(name, axis=1, level=1).groupby("round").mean().loc[p.index[p < LEVEL]]
        colour = style["palette"][name]
        axes.plot(points["weights_remaining"], points[y], "*", color=colour, markersize=12, markeredgecolor="white")
    axes.plot([], [], "*", color="0.4", markersize=9, label=f"differs from {baseline.split(' (')[0]}, p < {LEVEL:g}")


def _dense_line(axes: Axes, table: pd.DataFrame, y: str = "test_accuracy") -> None:
    dense = table[table["weights_remaining"] == 100][y].mean()
    axes.axhline(dense, color="black", linestyle=":", linewidth=1.2, label=f"dense ({dense:.1f})", zorder=0)


def pruning_curves(table: pd.DataFrame, hue: str, panels: dict[str, list[str]], zoom: float = 6.0) -> Figure:
    """Test accuracy against weights remaining, a block of rows per network and a column per panel. Where the lines
    spread over more than `WIDE` points, a lower row shows the `zoom` points below the best."""
    table = tables.begun(table, [hue])
    means = table.groupby(["network", hue, "round"])["test_accuracy"].mean()
    spread = (means.groupby("network").max() - means.groupby("network").min()).max()
    rows = _panels(table, hue, panels)
    figure, drawn = _grid(rows, 2 if spread > WIDE else 1)
    looks = _looks(rows)
    for (network, family, names), column in drawn:
        here = table[(table["network"] == network) & table[hue].isin(names)]
        for axes in column:
            _lines(axes, here, "test_accuracy", hue, looks[family])
            _stars(axes, here, "test_accuracy", hue, looks[family])
            _dense_line(axes, here)
            axes.set_ylabel(ACCURACY)
            axes.get_legend().remove()
        column[0].set_title(title(network, family))
        if len(column) == 2:
            column[1].set_ylim(means[network].max() - zoom, means[network].max() + 0.1 * zoom)
    legends([(column[0], column[-1]) for _, column in drawn])
    return figure


def ticket_curves(table: pd.DataFrame) -> Figure:
    """Two rows of panels per network: accuracy, learning speed and iteration of early stopping per variant; training
    minus test accuracy, tickets with noise, and how far weights went in the dense training."""
    table = tables.with_variant(table).assign(gap=table["train_accuracy"] - table["test_accuracy"])
    labels = {
        "test_accuracy": ACCURACY,
        "mean_validation_accuracy": "validation accuracy (%),\nmean over the course of training",
        "best_iteration": "iteration of early stopping\n(lowest validation loss)",
        "gap": "training minus test accuracy (points)",
    }
    table = tables.begun(table, ["variant"])
    networks = networks_of(table)
    main = [name for name in (*VARIANTS, VARIANTS[0] + DROPOUT) if name in set(table["variant"])]
    noise = sorted(name for name in set(table["variant"]) if " sigma" in name)
    style = look_of(list(dict.fromkeys(main + noise)))
    shape = {"nrows": 2 * len(networks), "ncols": 3, "figsize": (16, 8.8 * len(networks))}
    figure, grid = plt.subplots(**shape, squeeze=False, layout="constrained")
    named: list[Axes] = []
    for i, network in enumerate(networks):
        here = table[table["network"] == network]
        panels = list(grid[2 * i : 2 * i + 2].flat)
        drawn = [(y, label, main) for y, label in labels.items()]
        if here["variant"].isin(noise).any():
            drawn.append(("test_accuracy", ACCURACY, [VARIANTS[0], *noise, VARIANTS[2]]))
        for axes, (y, label, names) in zip(panels, drawn):
            shown = here[here["variant"].isin(names)]
            _lines(axes, shown, y, "variant", style)
            _stars(axes, shown, y, "variant", style)
            _dense_line(axes, here[here["variant"] == VARIANTS[0]], y)
            axes.set(ylabel=label, title=title(network))
            axes.get_legend().remove()
            if y == "best_iteration" and here[y].nunique() == 1:
                words = "every network was still improving\nat its last iteration"
                axes.text(0.5, 0.62, words, transform=axes.transAxes, ha="center", color="0.3")
            if y.endswith("accuracy"):
                best, span = here[y].max(), TOP[NETWORKS[network].dataset]
                axes.set_ylim(max(axes.get_ylim()[0], best - span), best + 0.04 * span)
        named += panels[: len(drawn) : len(labels)]
        _distances(panels[len(drawn)], here[here["variant"] == VARIANTS[0]])
        for axes in panels[len(drawn) :]:
            if not axes.has_data():
                axes.axis("off")
    legends([(axes, axes) for axes in named])
    return figure


def _distances(axes: Axes, tickets: pd.DataFrame) -> None:
    """How far the weights that a ticket keeps went in the dense training, and how far the others; nothing, if that is
    not known."""
    words = {"distance_kept": "weights in the ticket", "distance_pruned": "the others"}
    if not set(words) <= set(tickets) or tickets[list(words)].isna().all(axis=None):  # runs of an earlier version
        return
    long = tickets.rename(columns=words).melt(["weights_remaining", "seed"], list(words.values()), "which").dropna()
    _lines(axes, long, "value", "which", look_of(list(words.values())))
    axes.get_legend().set_title(None)
    axes.set_title(title(tickets["network"].iloc[0], "training of the dense network"))
    axes.set_ylabel("mean distance from the start\n(standard deviations of the layer's start)")


def criterion_regions(table: pd.DataFrame) -> Figure:
    """Which weights each criterion keeps, in the plane of initial and final value (Zhou et al. 2019, figure 2).

    `table` has `w_i`, `w_f` and a 0/1 column per criterion.
    """
    names = [c for c in table.columns if c not in ("network", "layer", "w_i", "w_f")]
    rows = -(-len(names) // 5)
    shared = {"sharex": True, "sharey": True, "squeeze": False, "layout": "constrained"}
    figure, grid = plt.subplots(rows, 5, figsize=(15, 3.1 * rows), **shared)
    reach = 1.05 * table[["w_i", "w_f"]].abs().to_numpy().max()
    for axes, name in zip(grid.flat, names):
        for kept, colour in ((0, "0.75"), (1, "#0072B2")):
            here = table[table[name] == kept]
            axes.plot(here["w_i"], here["w_f"], ".", color=colour, markersize=2.2, rasterized=True)
        axes.plot([-reach, reach], [-reach, reach], color="black", linewidth=0.5)
        axes.axhline(0, color="black", linewidth=0.5)
        axes.axvline(0, color="black", linewidth=0.5)
        axes.set(title=f"{name}\n{100 * table[name].mean():.0f} % kept", xlim=(-reach, reach), ylim=(-reach, reach))
        axes.title.set_fontsize(9)
    for axes in grid.flat[len(names) :]:
        axes.axis("off")
    figure.supxlabel("initial weight")
    figure.supylabel("final weight")
    return figure


def found_supermasks(table: pd.DataFrame) -> Figure:
    """Test accuracy of untrained weights under each criterion's mask, mean over whole seeds: per network an upper row
    on w_i and a lower on the signed constant; a column per family of criteria."""
    table = tables.whole(table, tables.OF_A_MASK)
    rows = _panels(table, "criterion", FAMILIES)
    figure, drawn = _grid(rows, 2)
    looks = _looks(rows)
    for (network, family, names), column in drawn:
        for axes, (action, words) in zip(column, WEIGHTS.items()):
            here = table[(table["network"] == network) & (table["mask1"] == action) & table["criterion"].isin(names)]
            _lines(axes, here, "test_accuracy", "criterion", looks[family])
            axes.axhline(10, color="black", linestyle=":", linewidth=1, label="chance")
            axes.set(ylabel=f"{ACCURACY}, untrained", title=title(network, family, words))
            axes.get_legend().remove()
        column[0].legend(*column[0].get_legend_handles_labels(), fontsize=8, loc="upper right")
    for axes in {network: column[0] for (network, _, _), column in drawn}.values():  # a row shares its axis
        low, high = axes.get_ylim()
        axes.set_ylim(low, low + 1.3 * (high - low))  # room for the legends
    return figure


def learned_supermasks(table: pd.DataFrame) -> Figure:
    """Test accuracy of learned supermasks, a dot per seed and a bar at the mean, beside trained weights and the
    paper's figures."""
    import seaborn as sns  # seconds that a worker need not wait

    learned = table[table["kind"] == "learned"]
    label = learned["mask1"].map(WEIGHTS) + learned["dwr"].map({True: ",\nDWR", False: ""})
    every = pd.concat([learned.assign(label=label), table[table["kind"] == "train"].assign(label="trained\nweights")])
    order = [f"{name}{dwr}" for dwr in ("", ",\nDWR") for name in WEIGHTS.values()] + ["trained\nweights"]
    networks = networks_of(every)
    figure, grid = plt.subplots(1, len(networks), figsize=(7 * len(networks), 4.6), squeeze=False, layout="constrained")
    for network, axes in zip(networks, grid[0]):
        here = every[every["network"] == network]
        for i, (name, colour) in enumerate(zip(order, sns.color_palette("colorblind"))):
            values = here[here["label"] == name].sort_values("seed")["test_accuracy"].to_numpy()
            if not len(values):
                continue
            beside = [i + 0.1 * (2 * (k + 1) / (len(values) + 1) - 1) for k in range(len(values))]
            axes.plot(beside, values, "o", color=colour, markersize=7)
            axes.plot(i, values.mean(), "_", color="black", markersize=32, markeredgewidth=2.5, zorder=1)
            note = (i, values.mean())
            axes.annotate(f"{note[1]:.1f}", note, xytext=(20, 0), textcoords="offset points", va="center", fontsize=9)
        papers = PAPER[network][COLUMNS.index("learned, w_i") :]  # in the order of `order`
        axes.plot(range(len(order)), papers, "D", color="0.4", markerfacecolor="none", label="the paper's", zorder=0)
        axes.legend(fontsize=9, loc="lower right")
        axes.set_xticks(range(len(order)), order)
        axes.set(xlabel="", ylabel=ACCURACY, title=title(network, "learned supermasks"), xlim=(-0.5, len(order) - 0.3))
        axes.grid(axis="y", alpha=0.3)
    return figure


FIGURES: dict[str, Callable[[pd.DataFrame], Figure]] = {
    "00_lottery_tickets": ticket_curves,
    "01_mask_criteria": partial(pruning_curves, hue="criterion", panels=FAMILIES),
    "01_criterion_regions": criterion_regions,
    "02_mask1_actions": partial(pruning_curves, hue="mask1", panels={"": list(MASK1_ACTIONS)}),
    "03_mask0_actions": partial(pruning_curves, hue="mask0", panels={"": list(MASK0_ACTIONS)}),
    "04_supermasks": found_supermasks,
    "05_learned_supermasks": learned_supermasks,
    "06_scorecard": scorecard,
}
