"""The papers' claims and the test that decides each: one number per seed, a paired t test over seeds, a verdict.

A claim compares a measure (test accuracy, unless it says otherwise) of two groups of runs over a range of weights
remaining, seed by seed. Ranges and margins are fixed here. Three were set after a first look at FC at `quick`: the
range of "zero beats init", ABOUT for FC, and NEAR. `judge` turns a notebook's table into the verdicts that it ends
with, each on its own; `scorecard` puts all together and adjusts for their number after Holm.
"""

from dataclasses import dataclass
from typing import Any

import pandas as pd
from scipy.special import stdtr

from lt_utils import tables
from lt_utils.inference import LEVEL, holm, interval, p_of_zero, standard_error
from lt_utils.paper import COLUMNS, PAPER
from lt_utils.tables import DROPOUT, NOISY, VARIANTS, networks_of, with_variant

Filter = dict[str, Any]
DEEP = (0.0, 5.0)  # "as pruning deepens": at most 5 % of the weights remain
MODERATE = (20.0, 80.0)
EVERYWHERE = (0.0, 100.0)
FC, CONV = ("fc",), ("conv2", "conv4", "conv6")
UNITS = {"best_iteration": "iterations", "moved_farther": "standard deviations"}  # of measures; else points
KINDS_OF_WEIGHTS = {"rewind": "initial weights", "constant_same_sign": "the signed constant"}


@dataclass(frozen=True)
class Claim:
    """`runs` has more of a measure than `than` (or, given a margin of equality, as much) within a range of weights
    remaining.

    `than` is a filter of runs, or a figure in percent, or the papers' figure per network. With `best`, each seed counts
    with its best point in the range instead of the mean over it.
    """

    section: str
    statement: str
    runs: Filter
    than: Filter | float
    remaining: tuple[float, float] = EVERYWHERE  # percent
    equal_within: float | dict[str, float] | None = None  # points; or by network
    best: bool = False
    measure: str = "test_accuracy"
    than_remaining: tuple[float, float] | None = None  # where it differs from `remaining`
    networks: tuple[str, ...] = (*FC, *CONV)
    figures: dict[str, float] | None = None  # the paper's, by network, instead of `than`
    allowance: float = 0.0  # points by which `runs` may have less, for "no worse than"

    def margin(self, network: str) -> float | None:
        """The margin of equality in points, or None for "more than"."""
        return self.equal_within[network] if isinstance(self.equal_within, dict) else self.equal_within


def _better(section: str, runs: Filter, than: Filter, remaining: tuple[float, float] = DEEP, **more: Any) -> Claim:
    """ "A beats B", or with `equal_within` "A is as good as B", worded from the values that the filters name; with the
    range, if it is not the usual one."""
    a, b = (" ".join(str(v) for v in f.values()) for f in (runs, than))
    how = "is as good as" if "equal_within" in more else "beats"
    where = "" if remaining == DEEP else " ({:g} % to {:g} %)".format(*remaining)
    return Claim(section, f"{a} {how} {b}{where}", runs, than, remaining, **more)


def _figure(section: str, statement: str, runs: Filter, column: str, margin: float | dict[str, float]) -> Claim:
    """ "The accuracy is the paper's", of its table of supermasks."""
    figures = {network: row[COLUMNS.index(column)] for network, row in PAPER.items()}
    return Claim(section, statement, runs, 0.0, equal_within=margin, best=True, figures=figures)


ABOUT = {"fc": 10.0} | dict.fromkeys(CONV, 5.0)  # points: what "about" means of a found supermask; chance is 10 %
NEAR = 2.0  # points within which a learned supermask has the paper's accuracy
CLOSE = 1.0  # points of test accuracy within which two ways count as equally good
TICKET, ONE_SHOT, REINIT, RANDOM = ({"variant": name} for name in VARIANTS)
AXES = {  # what tells a notebook's runs apart, beside network, seed and round
    "00_lottery_tickets": ["variant"],
    "01_mask_criteria": ["criterion"],
    "02_mask1_actions": ["mask1"],
    "03_mask0_actions": ["mask0"],
    "04_supermasks": ["criterion", "mask1"],
    "05_learned_supermasks": ["kind", "mask1", "dwr"],
}
DENSE, DROPPED = {"kind": "train", "round": 0} | TICKET, {"variant": VARIANTS[0] + DROPOUT}
CLAIMS: dict[str, list[Claim]] = {
    "00_lottery_tickets": [
        Claim("LTH", "winning tickets match the dense network (3.5 % to 20 % of the weights)", TICKET, DENSE,
              (3.5, 20.0), CLOSE),
        Claim("LTH", "winning tickets exceed the dense network at moderate pruning (20 % to 80 %)", TICKET,
              DENSE, MODERATE),
        Claim("LTH", "accuracy falls again at the deepest pruning (below 2 %, against 20 % to 80 %)", TICKET, TICKET,
              MODERATE, than_remaining=(0.0, 2.0)),
        Claim("LTH", "winning tickets stop earlier than the dense network (20 % to 80 %; iterations)", DENSE,
              TICKET, MODERATE, measure="best_iteration"),
        _better("LTH", TICKET, REINIT),
        _better("LTH", TICKET, RANDOM),
        Claim("LTH", "winning tickets learn faster than with random reinit (mean validation accuracy)", TICKET, REINIT,
              DEEP, measure="mean_validation_accuracy"),
        Claim("LTH", "winning tickets learn faster than random masks (mean validation accuracy)", TICKET, RANDOM, DEEP,
              measure="mean_validation_accuracy"),
        Claim("LTH", "one-shot pruning finds tickets, too (20 % to 80 %: as good as the dense network)",
              ONE_SHOT, DENSE, MODERATE, CLOSE),
        _better("LTH", TICKET, ONE_SHOT),
        Claim("LTH", "the gap between training and test accuracy is smaller for winning tickets (3.5 % to 20 %)",
              DENSE, TICKET, (3.5, 20.0), measure="gap"),
        Claim("LTH", "a ticket's weights end farther from their start than the others (in the dense training; standard "
              "deviations of the start)", TICKET, 0.0, measure="moved_farther"),
        Claim("LTH", "noise of 0.5 sigma on a ticket's initial weights barely changes its accuracy",
              {"variant": NOISY.format(0.5)}, TICKET, DEEP, CLOSE),
        *(
            Claim("LTH", f"with noise of {sigma} sigma a ticket's advantage is gone (random reinit is worse by at most "
                  f"{CLOSE:g})", REINIT, {"variant": NOISY.format(sigma)}, DEEP, allowance=CLOSE)
            for sigma in (2, 3)
        ),
        Claim("LTH", "dropout raises the dense network's accuracy", DROPPED | {"round": 0}, DENSE, networks=CONV),
        Claim("LTH", "dropout goes well with tickets: it raises their accuracy, too (20 % to 80 %)", DROPPED, TICKET,
              MODERATE, networks=CONV),
    ],
    "01_mask_criteria": [
        *(
            _better("DLT 2", {"criterion": name}, {"criterion": "large_final"}, equal_within=CLOSE)
            for name in ("magnitude_increase", "movement")
        ),
        _better("DLT 2 (?)", {"criterion": "magnitude_increase"}, {"criterion": "large_final"}, networks=CONV),
        *(
            _better("DLT 2", {"criterion": name}, {"criterion": "random"})
            for name in ("large_final", "magnitude_increase", "movement", "large_init_large_final")
        ),
        _better("DLT 2", {"criterion": "large_final"}, {"criterion": "large_init_large_final"}),
        _better("DLT 2", {"criterion": "large_init"}, {"criterion": "random"}, equal_within=CLOSE),
        *(
            _better("DLT 2", {"criterion": "random"}, {"criterion": name})
            for name in ("small_final", "small_init", "small_init_small_final")
        ),
    ],
    "02_mask1_actions": [
        *(_better("DLT 3", {"mask1": "rewind"}, {"mask1": name}) for name in ("reinit", "reshuffle", "constant")),
        *(
            _better("DLT 3", {"mask1": f"{name}_same_sign"}, {"mask1": "rewind"}, equal_within=CLOSE)
            for name in ("reinit", "reshuffle", "constant")
        ),
    ],
    "03_mask0_actions": [
        _better("DLT 4", {"mask0": "zero"}, {"mask0": "init"}, (5.0, 60.0)),  # "except perhaps at the deepest pruning"
        _better("DLT 4", {"mask0": "variant_1"}, {"mask0": "zero"}, (20.0, 99.0), equal_within=0.5),
        _better("DLT 4", {"mask0": "variant_1"}, {"mask0": "zero"}),
        _better("DLT 4 (?)", {"mask0": "variant_2"}, {"mask0": "variant_1"}),
        *(_better("DLT 4", {"mask0": "variant_1"}, {"mask0": name}) for name in ("control_random", "control_reverse")),
    ],
    "04_supermasks": [
        Claim("DLT 5", "large_final masks on initial weights give about 40 % untrained (+- 10)",
              {"criterion": "large_final", "mask1": "rewind"}, 40.0, equal_within=10.0, best=True, networks=FC),
        *(
            _figure(
                "DLT 5",
                f"large_final_same_sign masks on {words} give about the paper's accuracy untrained "
                f"(+- {ABOUT['fc']:g}; conv {ABOUT['conv2']:g})",
                {"criterion": "large_final_same_sign", "mask1": action},
                column,
                ABOUT,
            )
            for action, words, column in (
                ("rewind", "initial weights", "mask, w_i"),
                ("constant_same_sign", "the signed constant", "mask, signed const"),
            )
        ),
        Claim("DLT 5", "large_final_same_sign beats large_final, untrained", {"criterion": "large_final_same_sign"},
              {"criterion": "large_final"}, best=True),
        Claim("DLT 5", "the signed constant beats the initial weights (large_final_same_sign, untrained)",
              {"criterion": "large_final_same_sign", "mask1": "constant_same_sign"},
              {"criterion": "large_final_same_sign", "mask1": "rewind"}, best=True),
        *(
            Claim("DLT 5", f"{name} masks stay near chance (10 % +- 5)", {"criterion": name}, 10.0, (0.0, 99.0),
                  equal_within=5.0)
            for name in ("random", "large_final_diff_sign", "magnitude_increase_diff_sign")
        ),
    ],
    "05_learned_supermasks": [
        *(
            _figure(
                "DLT 5.2",
                f"supermasks learned {'with DWR ' * dwr}on {words} have the paper's accuracy (+- {NEAR:g})",
                {"kind": "learned", "mask1": action, "dwr": dwr},
                f"{'DWR' if dwr else 'learned'}, {'w_i' if action == 'rewind' else 'signed const'}",
                NEAR,
            )
            for dwr in (False, True)
            for action, words in KINDS_OF_WEIGHTS.items()
        ),
        Claim("DLT 5.2", "supermasks learned on initial weights reach 95 % (no DWR)",
              {"kind": "learned", "mask1": "rewind", "dwr": False}, 95.0, networks=FC),
        Claim("DLT 5.2", "DWR raises accuracy", {"kind": "learned", "dwr": True}, {"kind": "learned", "dwr": False}),
        Claim("DLT 5.2", "the signed constant raises accuracy (no DWR)",
              {"kind": "learned", "mask1": "constant_same_sign", "dwr": False},
              {"kind": "learned", "mask1": "rewind", "dwr": False}),
        Claim("DLT 5.2", "DWR and signed constant match trained weights",
              {"kind": "learned", "mask1": "constant_same_sign", "dwr": True}, DENSE, equal_within=CLOSE, networks=FC),
    ],
}  # fmt: skip


def _rows(which: Filter, remaining: tuple[float, float], table: pd.DataFrame) -> pd.DataFrame:
    """The runs of one side of a claim, in its range; round 0 alone has no range."""
    here = table.loc[(table[list(which)] == pd.Series(which)).all(axis=1)]
    return here if which.get("round") == 0 else here[here["weights_remaining"].between(*remaining)]


def _at_points_of(rows: pd.DataFrame, others: pd.DataFrame, free: list[str]) -> pd.DataFrame:
    """Those of `rows` at whose seed, round and `free` treatments `others` have a run, too: where a sweep was cut short,
    two sides must not be compared at different depths, or on different kinds of weights."""
    points = [pd.MultiIndex.from_frame(part[["seed", "round", *free]]) for part in (rows, others)]
    return rows[points[0].isin(points[1])]


def _per_seed(claim: Claim, rows: pd.DataFrame) -> pd.Series:
    """One number per whole seed: the mean (or best) measure."""
    if claim.measure not in rows:  # tables of earlier versions lack some
        return pd.Series(dtype=float)
    grouped = tables.whole(rows).groupby("seed")[claim.measure]
    return grouped.max() if claim.best else grouped.mean()


def _test(values: pd.Series, margin: float | None) -> tuple[float, str]:
    """p of a t test over seeds of "greater than 0" (two-sided) or of "equal within the margin" (two one-sided tests;
    or that the margin is exceeded), whichever way the seeds point, and that way."""
    n, mean = len(values), values.mean()
    if n < 2:
        return 1.0, "inconclusive"
    if margin is None:
        return p_of_zero(values), "reproduced" if mean > 0 else "contradicted"
    inside = (margin - abs(mean)) / standard_error(values)  # the nearer of the two bounds
    p_equal, p_unequal = stdtr(n - 1, -inside), 2 * stdtr(n - 1, inside)
    return (p_equal, "reproduced") if p_equal < p_unequal else (min(p_unequal, 1.0), "contradicted")


def verdict(p: float, direction: str) -> str:
    """What a test says at the 5 % level."""
    return direction if p < LEVEL else "inconclusive"


def check(notebook: str, table: pd.DataFrame) -> pd.DataFrame:
    """The table of a notebook with each run's variant. Raises ValueError if runs differ in what the notebook does not
    compare, since its figure and its claims would average over that."""
    table = with_variant(table)
    tables.check_alike(table, AXES[notebook])
    return table


def judge(notebook: str, table: pd.DataFrame) -> pd.DataFrame:
    """A row per claim and network: mean difference in points, its 95 % paired t interval over seeds, the test's p, and
    the verdict of the claim on its own.

    With fewer than two seeds the verdict is "inconclusive"; without runs it is "not run". Raises ValueError as `check`.
    """
    table = check(notebook, table)
    if "train_accuracy" in table:
        table["gap"] = table["train_accuracy"] - table["test_accuracy"]
    if "distance_kept" in table:
        table["moved_farther"] = table["distance_kept"] - table["distance_pruned"]
    return pd.DataFrame(
        {"network": network, "source": claim.section, "claim": claim.statement}
        | _decide(claim, network, table[table["network"] == network], AXES[notebook])
        for network in networks_of(table)
        for claim in CLAIMS[notebook]
        if network in claim.networks
    )


def _decide(claim: Claim, network: str, table: pd.DataFrame, axes: list[str]) -> dict[str, Any]:
    """The numbers and the verdict of a claim on one network, whose runs differ along `axes`."""
    rows, than = _rows(claim.runs, claim.remaining, table), claim.figures[network] if claim.figures else claim.than
    if isinstance(than, dict):
        others = _rows(than, claim.than_remaining or claim.remaining, table)
        if not claim.than_remaining and 0 not in (claim.runs.get("round"), than.get("round")):
            free = [axis for axis in axes if axis not in claim.runs and axis not in than]
            rows, others = _at_points_of(rows, others, free), _at_points_of(others, rows, free)
        than = _per_seed(claim, others)
    ours = _per_seed(claim, rows)
    difference = (ours - than).dropna()
    margin, ran = claim.margin(network), len(difference) > 0
    low, high = interval(difference) if ran else (float("nan"), float("nan"))
    p, direction = _test(difference + claim.allowance, margin)
    return {
        "ours": ours[difference.index].mean(),  # of the seeds that both sides have
        "beside": than if isinstance(than, float) else than[difference.index].mean(),
        "difference": difference.mean(),
        "low": low,
        "high": high,
        "margin": margin,
        "unit": UNITS.get(claim.measure, "points"),
        "seeds": len(difference),
        "p": p if ran else float("nan"),
        "direction": direction if ran else "",
        "verdict": verdict(p, direction) if ran else "not run",
    }


def in_words(judged: pd.DataFrame) -> str:
    """What `judge` found, a paragraph per network in HTML: how many claims hold, and which do not or remain open."""
    paragraphs = []
    for network, here in judged.groupby("network", sort=False):
        count = here["verdict"].value_counts()
        if count.get("not run") == len(here):
            paragraphs.append(f"<b>{network}</b>: none of its {len(here)} claims was tested.")
            continue
        untested = f", {count['not run']} not run" if "not run" in count else ""
        parts = [f"<b>{network}</b>: {count.get('reproduced', 0)} of {len(here)} claims reproduced{untested}."]
        for name in ("contradicted", "inconclusive", "not run"):
            rows = here[here["verdict"] == name]
            said = [
                row.claim + ("" if pd.isna(row.difference) else f" ({row.difference:+.2f} {row.unit})")
                for row in rows.itertuples()
            ]
            parts += [f"{name.capitalize()}: {'; '.join(said)}."] if said else []
        paragraphs.append("<br>".join(parts))
    return "<br><br>".join(paragraphs)


def readable(judged: pd.DataFrame, digits: int = 2) -> pd.DataFrame:
    """Judged claims that were tested, for reading: the difference and its interval (of two seeds or more) in one
    column, with so many digits, and the verdicts right after it."""
    both, tested = "difference (95 % interval)", judged[judged["seeds"] > 0].reset_index(drop=True)
    words = tested.rename(columns={"verdict_holm": "after Holm", "p_holm": "p after Holm"})
    words[both] = [
        f"{row.difference:+.{digits}f}"
        + ("" if row.seeds < 2 else f" ({row.low:+.{digits}f} to {row.high:+.{digits}f})")
        for row in tested.itertuples()
    ]
    for name in {"p", "p after Holm"} & set(words):
        words[name] = ["< 0.001" if p < 0.001 else f"{p:.3f}" for p in words[name]]
    told = ["network", "source", "claim", both, "scale", "seeds", "verdict", "after Holm", "ours", "beside"]
    return words[[name for name in (*told, "p", "p after Holm") if name in words]]


def scorecard(judged: pd.DataFrame) -> pd.DataFrame:
    """The verdicts of all notebooks, adjusted for their number: columns `p_holm` and `verdict_holm` are added."""
    adjusted = holm(judged["p"])
    verdicts = [
        "not run" if pd.isna(p) else verdict(p, direction) for p, direction in zip(adjusted, judged["direction"])
    ]
    return judged.assign(p_holm=adjusted, verdict_holm=verdicts)
