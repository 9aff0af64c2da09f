"""The papers' claims and the test that decides each: one number per seed, a t interval over seeds, a verdict.

A claim compares the test accuracy of two groups of runs over a range of weights remaining, seed by seed. Its range and
its margin are fixed here. Two were set after a first look at `quick`: the range of "zero beats init", and ABOUT.
`judge` turns a notebook's table into the verdicts that it ends with.
"""

from dataclasses import dataclass
from typing import Any

import pandas as pd
from scipy.special import stdtrit

from lt_utils.plots import variant

Filter = dict[str, Any]
DEEP = (0.0, 5.0)  # "as pruning deepens": at most 5 % of the weights remain


@dataclass(frozen=True)
class Claim:
    """`runs` does better than `than` (or, given a margin of equality, as well) within a range of weights remaining.

    `than` is a filter of runs, or a number: an accuracy in percent that `runs` reaches at its best. With `best`, each
    seed counts with its best point in the range instead of the mean over it.
    """

    section: str
    statement: str
    runs: Filter
    than: Filter | float
    remaining: tuple[float, float] = (0.0, 100.0)  # percent
    equal_within: float | None = None  # points
    best: bool = False


def _better(section: str, runs: Filter, than: Filter, remaining: tuple[float, float] = DEEP, **more: Any) -> Claim:
    """ "A beats B", or with `equal_within` "A is as good as B", worded from the values that the filters name."""
    a, b = (" ".join(str(v) for v in f.values()) for f in (runs, than))
    how = "is as good as" if "equal_within" in more else "beats"
    return Claim(section, f"{a} {how} {b}", runs, than, remaining, **more)


ABOUT = 10.0  # points: what "about" means of the accuracy of a found supermask
CLOSE = 1.0  # points of test accuracy within which two ways count as equally good
TICKET, DENSE = {"variant": "winning ticket (iterative)"}, {"kind": "train", "round": 0}
CLAIMS: dict[str, list[Claim]] = {
    "00_lottery_tickets": [
        Claim(
            "LTH",
            "winning tickets match the dense network (3.5 % to 20 % of the weights)",
            TICKET,
            {"round": 0},
            (3.5, 20.0),
            CLOSE,
        ),
        _better("LTH", TICKET, {"variant": "ticket's mask, random reinit"}),
        _better("LTH", TICKET, {"variant": "random mask"}),
        _better("LTH", TICKET, {"variant": "one-shot ticket"}),
    ],
    "01_mask_criteria": [
        *(
            _better("DLT 2", {"criterion": name}, {"criterion": "large_final"}, equal_within=CLOSE)
            for name in ("magnitude_increase", "movement")
        ),
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
        Claim(
            "DLT 5",
            f"{name} masks on {words} give about {paper:g} % untrained (+- {ABOUT:g})",
            {"criterion": name, "mask1": action},
            paper,
            equal_within=ABOUT,
            best=True,
        )
        for name, action, words, paper in (
            ("large_final", "rewind", "initial weights", 40.0),
            ("large_final_same_sign", "rewind", "initial weights", 80.0),
            ("large_final_same_sign", "constant_same_sign", "the signed constant", 86.0),
        )
    ]
    + [
        Claim(
            "DLT 5",
            "large_final_same_sign beats large_final, untrained",
            {"criterion": "large_final_same_sign"},
            {"criterion": "large_final"},
            best=True,
        ),
        Claim(
            "DLT 5",
            "the signed constant beats the initial weights (large_final_same_sign, untrained)",
            {"criterion": "large_final_same_sign", "mask1": "constant_same_sign"},
            {"criterion": "large_final_same_sign", "mask1": "rewind"},
            best=True,
        ),
        Claim("DLT 5", "random masks stay near chance (10 % +- 5)", {"criterion": "random"}, 10.0, equal_within=5.0),
        Claim(
            "DLT 5",
            "large_final_diff_sign masks stay near chance (10 % +- 5)",
            {"criterion": "large_final_diff_sign"},
            10.0,
            (0.0, 99.0),
            equal_within=5.0,
        ),
    ],
    "05_learned_supermasks": [
        Claim(
            "DLT 5.2",
            "learned supermasks reach 95 % (initial weights)",
            {"kind": "learned", "mask1": "rewind", "dwr": False},
            95.0,
        ),
        Claim("DLT 5.2", "DWR raises accuracy", {"kind": "learned", "dwr": True}, {"kind": "learned", "dwr": False}),
        Claim(
            "DLT 5.2",
            "the signed constant raises accuracy (no DWR)",
            {"kind": "learned", "mask1": "constant_same_sign", "dwr": False},
            {"kind": "learned", "mask1": "rewind", "dwr": False},
        ),
        Claim(
            "DLT 5.2",
            "DWR and signed constant match trained weights",
            {"kind": "learned", "mask1": "constant_same_sign", "dwr": True},
            DENSE,
            equal_within=CLOSE,
        ),
    ],
}


def _per_seed(claim: Claim, which: Filter, table: pd.DataFrame) -> pd.Series:
    """One number per seed: the mean (or best) test accuracy in the range; round 0 alone has no range."""
    here = table.loc[(table[list(which)] == pd.Series(which)).all(axis=1)]
    if which.get("round") != 0:
        here = here[here["weights_remaining"].between(*claim.remaining)]
    grouped = here.groupby("seed")["test_accuracy"]
    return grouped.max() if claim.best else grouped.mean()


def verdict(low: float, high: float, margin: float | None) -> str:
    """What an interval of a difference says: of "greater than 0", or of "equal within the margin"."""
    if margin is None:
        return "reproduced" if low > 0 else "contradicted" if high < 0 else "inconclusive"
    if -margin <= low and high <= margin:
        return "reproduced"
    return "contradicted" if low > margin or high < -margin else "inconclusive"


def judge(notebook: str, table: pd.DataFrame) -> pd.DataFrame:
    """A row per claim and network: mean difference in points, its 95 % paired t interval over seeds, the verdict.

    With fewer than two seeds there is no interval, and the verdict is "inconclusive"; without runs it is "not run".
    """
    rows = []
    table = table.assign(variant=table.apply(variant, axis=1))
    for network, here in table.groupby("network"):
        for claim in CLAIMS[notebook]:
            ours = _per_seed(claim, claim.runs, here)
            than = claim.than if isinstance(claim.than, float) else _per_seed(claim, claim.than, here)
            difference = (ours - than).dropna()
            low, high = _interval(difference)
            decided = verdict(low, high, claim.equal_within) if len(difference) else "not run"
            rows.append(
                {
                    "network": network,
                    "source": claim.section,
                    "claim": claim.statement,
                    "accuracy": ours.mean(),
                    "difference": difference.mean(),
                    "low": low,
                    "high": high,
                    "seeds": len(difference),
                    "verdict": decided,
                }
            )
    return pd.DataFrame(rows)


def _interval(values: pd.Series) -> tuple[float, float]:
    """95 % t interval of the mean; unbounded for fewer than two values."""
    if len(values) < 2:
        return -float("inf"), float("inf")
    half = stdtrit(len(values) - 1, 0.975) * values.sem()
    return values.mean() - half, values.mean() + half
