"""Verdicts on claims, on tables made for it."""

import pandas as pd
import pytest

from lt_utils.claims import Claim, _interval, judge, verdict


@pytest.fixture
def table():
    """Three seeds of two mask-1 actions at 100, 4 and 2 % of the weights."""
    accuracy = {"rewind": [97, 96, 95], "reinit": [97, 91, 90], "reinit_same_sign": [97, 96.2, 94.9]}
    rows = [
        {
            "network": "fc",
            "kind": "train",
            "schedule": "iterative",
            "criterion": "large_final",
            "mask1": action,
            "round": r,
            "seed": seed,
            "weights_remaining": remaining,
            "test_accuracy": accuracy[action][r] + 0.1 * seed * (-1) ** r,
        }
        for action in accuracy
        for r, remaining in enumerate((100, 4, 2))
        for seed in range(3)
    ]
    return pd.DataFrame(rows)


def test_claims_are_judged_by_paired_differences_in_their_range(table):
    found = judge("02_mask1_actions", table).set_index("claim")
    better, equal = found.loc["rewind beats reinit"], found.loc["reinit_same_sign is as good as rewind"]
    assert (better["difference"], better["verdict"], better["seeds"]) == (pytest.approx(5), "reproduced", 3)
    assert (equal["difference"], equal["verdict"]) == (pytest.approx(0.05), "reproduced")
    assert found.loc["rewind beats constant", "verdict"] == "not run"


def test_one_seed_decides_nothing(table):
    found = judge("02_mask1_actions", table[table["seed"] == 0]).set_index("claim")
    assert found.loc["rewind beats reinit", "verdict"] == "inconclusive"


@pytest.mark.parametrize(
    ("low", "high", "margin", "expected"),
    [
        (0.1, 2, None, "reproduced"),
        (-2, -0.1, None, "contradicted"),
        (-1, 1, None, "inconclusive"),
        (-0.5, 0.5, 1.0, "reproduced"),
        (1.1, 3, 1.0, "contradicted"),
        (-3, -1.1, 1.0, "contradicted"),
        (0.5, 1.5, 1.0, "inconclusive"),
    ],
)
def test_verdicts(low, high, margin, expected):
    assert verdict(low, high, margin) == expected


def test_the_interval_is_the_t_interval():
    low, high = _interval(pd.Series([1.0, 2.0, 3.0]))  # mean 2, s.e. 1/sqrt(3), t(0.975, 2) = 4.3027
    assert (low, high) == (pytest.approx(2 - 4.30265 / 3**0.5, rel=1e-4), pytest.approx(2 + 4.30265 / 3**0.5, rel=1e-4))


def test_a_claim_with_a_goal_counts_each_seeds_best():
    table = pd.DataFrame(
        {
            "network": "fc",
            "kind": "found",
            "criterion": "large_final",
            "mask1": "rewind",
            "round": [0, 3] * 2,
            "schedule": "one_shot",
            "seed": [0, 0, 1, 1],
            "weights_remaining": [100, 50] * 2,
            "test_accuracy": [10.0, 41.0, 9.0, 43.0],
        }
    )
    row = judge("04_supermasks", table).iloc[0]
    assert row["accuracy"] == 42
    assert row["difference"] == 42 - 40
    assert isinstance(Claim("", "", {}, 1.0).than, float)
