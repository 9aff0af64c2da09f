"""How the lines of a figure look, and where its legends stand."""

from matplotlib.axes import Axes
from matplotlib.transforms import offset_copy

from lt_utils.tables import VARIANTS

BASELINES = ("large_final", "rewind", "zero", VARIANTS[0])
GREY = ("random", VARIANTS[3])


def look_of(hues: list[str]) -> dict:
    """Colours, markers and dashes that tell `hues` apart, also in print and to the colour-blind. The baseline is always
    a blue dot, chance a grey cross and dashed; an action and its sign-keeping sibling share a colour, the former
    dashed."""
    import seaborn as sns  # seconds that a worker need not wait

    blue, *colours = sns.color_palette("colorblind")
    del colours[6]  # a grey
    fixed = dict.fromkeys(BASELINES, blue) | dict.fromkeys(GREY, (0.45, 0.45, 0.45))
    siblings = {f"{hue}_same_sign": hue for hue in hues if hue not in fixed and f"{hue}_same_sign" in hues}
    rest = iter(colours)
    palette = {hue: fixed[hue] if hue in fixed else next(rest) for hue in hues if hue not in siblings}
    palette = {hue: palette[siblings.get(hue, hue)] for hue in hues}
    dashed, markers = {*GREY, *siblings.values()}, iter("sDv^P<>*")
    return {
        "palette": palette,
        "markers": {hue: "o" if hue in BASELINES else "X" if hue in GREY else next(markers) for hue in hues},
        "dashes": {hue: (2, 1.5) if hue in dashed else "" for hue in hues},
    }


def legends(places: list[tuple[Axes, Axes]]) -> None:
    """A legend in each panel of a figure where it covers no line; if there is no such place in one of them, all
    beneath. `places` has of each panel the axes to explain and the lowest."""
    figure = places[0][0].figure
    for place in ("lower left", "best"):
        for axes, _ in places:
            axes.legend(fontsize=8, loc=place, framealpha=0.9)
        figure.draw_without_rendering()
        if not any(_covered(axes) for axes, _ in places):
            return
    lines = max(len(axes.get_legend().get_texts()) for axes, _ in places) / 2
    rows = len({lowest.get_subplotspec().rowspan.stop for _, lowest in places})
    for axes, lowest in places:
        axes.get_legend().remove()
        below = offset_copy(lowest.transAxes, figure, y=-0.45, units="inches")
        where = {"loc": "upper center", "bbox_to_anchor": (0.5, 0.0), "bbox_transform": below}
        lowest.legend(*axes.get_legend_handles_labels(), fontsize=8, ncols=2, frameon=False, **where)
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + rows * (0.2 + 0.17 * lines))


def _covered(axes: Axes) -> bool:
    """Whether a legend lies on a line."""
    box = axes.get_legend().get_window_extent()
    paths = [line.get_path().transformed(line.get_transform()) for line in axes.lines if len(line.get_xdata())]
    return any(path.intersects_bbox(box, filled=False) for path in paths)
