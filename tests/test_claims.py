"""Verdicts on claims, on tables made for it."""

import math
import re

import pandas as pd
import pytest
from matplotlib.axes import Axes

import lt_utils as lt
from lt_utils import forest, plots, tables
from lt_utils.__main__ import summary
from lt_utils.claims import CLAIMS, Claim, _test, in_words, judge, readable, scorecard, verdict
from lt_utils.inference import holm, interval
from lt_utils.paper import PAPER
from lt_utils.scorecard import beside, combined, counts
from lt_utils.tables import with_variant


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
    assert found.loc["rewind beats constant", ["difference", "low", "high"]].isna().all()


def test_of_a_sweep_cut_short_the_points_that_both_sides_have_are_compared(table):
    cut = table[(table["mask1"] != "reinit") | (table["round"] < 2)]  # not run at 2 %, where tickets are at 95 %
    better = judge("02_mask1_actions", cut).set_index("claim").loc["rewind beats reinit"]
    assert (better["difference"], better["ours"], better["seeds"]) == (pytest.approx(5), pytest.approx(95.9), 3)
    cut = cut[(cut["mask1"] != "reinit") | (cut["seed"] != 1) | (cut["round"] < 1)]
    better = judge("02_mask1_actions", cut).set_index("claim").loc["rewind beats reinit"]
    assert (better["difference"], better["seeds"]) == (pytest.approx(5), 2)


def test_a_seed_that_lacks_some_of_the_depths_of_the_others_does_not_count(table):
    dear = table["test_accuracy"] + 3 * ((table["mask1"] == "reinit") & (table["round"] == 2))
    cut = table.assign(test_accuracy=dear)[(table["seed"] != 1) | (table["round"] < 2)]  # seed 1 was not run at 2 %
    better = judge("02_mask1_actions", cut).set_index("claim").loc["rewind beats reinit"]
    assert (better["difference"], better["seeds"]) == (pytest.approx((5 + 2) / 2), 2)


def test_only_weights_of_the_kinds_that_both_sides_have_are_compared():
    """DWR was run on the signed constant alone, on which masks without it are better than on the initial weights."""
    accuracy = {("rewind", False): 94, ("constant_same_sign", False): 96, ("constant_same_sign", True): 97.5}
    table = pd.DataFrame(
        {"network": "fc", "kind": "learned", "schedule": "iterative", "criterion": "large_final", "mask1": action}
        | {
            "dwr": dwr,
            "round": 0,
            "seed": seed,
            "weights_remaining": 50,
            "test_accuracy": value + 0.1 * seed * (1 + dwr),
        }
        for (action, dwr), value in accuracy.items()
        for seed in range(3)
    )
    raised = judge("05_learned_supermasks", table).set_index("claim").loc["DWR raises accuracy"]
    assert (raised["difference"], raised["beside"]) == (pytest.approx(1.6), pytest.approx(96.1))


def test_a_claim_says_where_and_how_closely_it_is_tested():
    """Its range of weights remaining is at most 5 %, unless it states another; likewise its margin."""
    retrained = [claim for name in list(CLAIMS)[:4] for claim in CLAIMS[name] if isinstance(claim.than, dict)]
    assert len(retrained) > 30
    for claim in retrained:
        stated = re.search(r"\((?:below .* against )?([\d.]+) % to (\d+) %", claim.statement)
        usual = (0, 100) if claim.runs.get("round") == 0 else (0, 5)
        assert claim.remaining == (tuple(map(float, stated.groups())) if stated else usual), claim.statement
        below = re.search(r"below (\d+) %", claim.statement)
        assert claim.than_remaining == ((0, float(below[1])) if below else None)
    near = {c.statement: c for name in list(CLAIMS)[4:] for c in CLAIMS[name] if "+- " in c.statement}
    assert len(near) == 10
    for statement, claim in near.items():
        margins = [float(words) for words in re.findall(r"(?:\+-|conv) (\d+)", statement)]
        assert {claim.margin(network) for network in claim.networks} == set(margins), statement


def test_a_best_mask_is_of_seeds_whose_sweep_has_every_density(tmp_path, monkeypatch):
    accuracy = {"random": [10, 9, 11], "large_final": [10, 30, 20]}
    every = pd.DataFrame(
        {"network": "fc", "kind": "found", "criterion": criterion, "mask1": action, "dwr": False, "seed": seed}
        | {"round": r, "weights_remaining": 100 * 0.6**r, "test_accuracy": values[r] + seed + 20 * (action != "rewind")}
        for criterion, values in accuracy.items()
        for action in ("rewind", "constant_same_sign")
        for seed in (0, 2, 6)
        for r in range(3)
    )
    cut = every[(every["seed"] != 6) | (every["round"] != 1) | (every["criterion"] == "random")]
    best = lt.best_supermasks(cut).loc["fc"]
    assert best.loc["large_final"].tolist() == [31, 51, 2], "the mean of 30 and 32, not of these and 26"
    assert best.loc["random"].to_dict() == {"initial weights": 13.7, "signed constant": 33.7, "seeds": 3}
    drawn = [list(line.get_ydata()) for line in plots.found_supermasks(cut).axes[0].lines]
    assert [21, 31, 11] in drawn, "by weights remaining; the mean of two seeds at every density"
    monkeypatch.setenv("LT_RESULTS", str(tmp_path))
    tables.keep(tmp_path / "quick", "04_supermasks", cut)
    assert lt.supermasks("quick").loc[("fc", "here")].iloc[:2].tolist() == [31, 51]


def test_runs_that_differ_in_what_is_not_compared_are_not_averaged(table, tmp_path, monkeypatch):
    monkeypatch.setenv("LT_RESULTS", str(tmp_path))
    mixed = pd.concat([table, table.assign(criterion="movement", test_accuracy=table["test_accuracy"] - 9)])
    other_lengths = table.assign(iterations=1 + table["seed"])
    for average, field, first in (
        (lambda: judge("02_mask1_actions", mixed), "criterion", "'large_final'"),
        (lambda: lt.accuracies(mixed, "mask1"), "criterion", "'large_final'"),
        (lambda: lt.publish("02_mask1_actions", mixed, lt.settings("quick")), "criterion", "'large_final'"),
        (lambda: lt.best_supermasks(other_lengths), "iterations", "1"),
    ):
        with pytest.raises(ValueError, match=rf"differ in {field} .*\[table\['{field}'\] == {first}\]"):
            average()
    assert not list(tmp_path.iterdir()), "what can't be drawn takes no table's place"
    both = lt.accuracies(mixed, ["mask1", "criterion"])
    ahead = both.xs("large_final", level="criterion") - both.xs("movement", level="criterion")
    assert ahead.round(6).eq(9).all(axis=None)
    chosen = judge("02_mask1_actions", mixed[mixed["criterion"] == "large_final"])
    pd.testing.assert_frame_equal(chosen, judge("02_mask1_actions", table))


def test_one_seed_decides_nothing(table):
    found = judge("02_mask1_actions", table[table["seed"] == 0]).set_index("claim")
    one = found.loc["rewind beats reinit"]
    assert (one["p"], one["low"], one["high"], one["verdict"]) == (1, -math.inf, math.inf, "inconclusive")


@pytest.mark.parametrize(
    ("values", "margin", "expected"),
    [
        ([0.9, 1.0, 1.1], None, "reproduced"),
        ([-0.9, -1.0, -1.1], None, "contradicted"),
        ([-1, 0.5, 1], None, "inconclusive"),
        ([-0.1, 0.0, 0.2], 1.0, "reproduced"),
        ([2.0, 2.1, 2.2], 1.0, "contradicted"),
        ([-2.0, -2.1, -2.2], 1.0, "contradicted"),
        ([0.2, 1.0, 1.6], 1.0, "inconclusive"),
        ([3.0], None, "inconclusive"),
    ],
)
def test_verdicts(values, margin, expected):
    assert verdict(*_test(pd.Series(values, dtype=float), margin)) == expected


def test_p_is_that_of_the_paired_t_test():
    from scipy.stats import ttest_1samp

    values = pd.Series([0.3, 1.1, -0.2, 0.9, 0.5])
    assert _test(values, None)[0] == pytest.approx(ttest_1samp(values, 0).pvalue)
    inside = ttest_1samp(values, 2.0, alternative="less").pvalue  # the mean is below 2, and far above -2
    assert _test(values, 2.0)[0] == pytest.approx(inside)


def test_holm_adjusts_for_the_number_of_claims_that_were_tested():
    adjusted = holm(pd.Series([0.01, float("nan"), 0.04, 0.03]))
    assert adjusted.tolist()[0] == pytest.approx(0.03)
    assert adjusted.tolist()[2:] == pytest.approx([0.06, 0.06])  # 0.03 x 2, and no smaller than that before it
    assert adjusted.isna().tolist() == [False, True, False, False]
    judged = pd.DataFrame({"p": [0.01, float("nan"), 0.04], "direction": ["reproduced", "", "contradicted"]})
    assert scorecard(judged)["verdict_holm"].tolist() == ["reproduced", "not run", "contradicted"]


def test_no_claim_is_there_twice():
    every = [claim for claims in CLAIMS.values() for claim in claims]
    for network in PAPER:
        statements = [claim.statement for claim in every if network in claim.networks]
        assert len(statements) == len(set(statements))


def tickets(name, accuracy, remaining=4.0, **fields):
    """Three seeds of one variant at one density."""
    common = {"network": "conv2", "kind": "train", "schedule": "iterative", "criterion": "large_final", "round": 1}
    common |= {"mask1": "rewind", "noise": 0.0, "dropout": 0.0, "weights_remaining": remaining}
    table = pd.DataFrame([common | fields | {"seed": s, "test_accuracy": accuracy + 0.1 * s} for s in range(3)])
    assert set(with_variant(table)["variant"]) == {name}
    return table


def test_claims_about_noise_dropout_and_distance():
    table = pd.concat(
        [
            tickets("winning ticket (iterative)", 97, distance_kept=0.9, distance_pruned=0.4),
            tickets("winning ticket (iterative)", 96, 100.0, round=0),
            tickets("winning ticket (iterative), dropout", 96.5, 100.0, round=0, dropout=0.5),
            tickets("ticket's mask, random reinit", 93, schedule="ticket", mask1="reinit"),
            tickets("ticket with noise of 0.5 sigma", 96.8, schedule="ticket", noise=0.5),
            tickets("ticket with noise of 2 sigma", 93.3, schedule="ticket", noise=2.0),
            tickets("ticket with noise of 3 sigma", 96, schedule="ticket", noise=3.0),
        ]
    )
    found = judge("00_lottery_tickets", table)
    verdicts = {
        words: found[found["claim"].str.contains(words, regex=False)].iloc[0]
        for words in ("0.5 sigma", "2 sigma", "3 sigma", "farther", "raises the dense", "goes well", "stop earlier")
    }
    assert {words: row["verdict"] for words, row in verdicts.items()} == {
        "0.5 sigma": "reproduced",
        "2 sigma": "reproduced",  # random reinit has 0.3 points less, where it may have one
        "3 sigma": "contradicted",
        "farther": "reproduced",
        "raises the dense": "reproduced",
        "goes well": "not run",
        "stop earlier": "not run",  # the table says nothing about iterations
    }
    words = in_words(found)
    assert words.startswith("<b>conv2</b>: 5 of 17 claims reproduced, 10 not run.<br>")
    assert ": 5 of 7 claims reproduced.<br>" in in_words(found[found["verdict"] != "not run"])
    assert "Contradicted: with noise of 3 sigma a ticket's advantage is gone (random reinit is worse by at most 1) "\
        "(-3.00 points)." in words  # fmt: skip
    assert "Not run: " in words
    assert "nan" not in words
    both = in_words(pd.concat([found.assign(network="fc"), found]))
    assert both.index("<b>fc</b>") < both.index("<b>conv2</b>"), "in the order of the figure"
    untested = in_words(pd.concat([found, found.assign(network="conv4", verdict="not run", difference=float("nan"))]))
    assert untested.endswith("<b>conv4</b>: none of its 17 claims was tested.")
    assert verdicts["2 sigma"]["difference"] == pytest.approx(-0.3)
    assert verdicts["farther"]["difference"] == pytest.approx(0.5)
    assert verdicts["farther"]["unit"] == "standard deviations"


def test_the_interval_is_the_t_interval():
    low, high = interval(pd.Series([1.0, 2.0, 3.0]))  # mean 2, s.e. 1/sqrt(3), t(0.975, 2) = 4.3027
    assert (low, high) == (pytest.approx(2 - 4.30265 / 3**0.5, rel=1e-4), pytest.approx(2 + 4.30265 / 3**0.5, rel=1e-4))


def test_both_sides_and_their_difference_are_of_the_same_seeds():
    """Where a sweep was cut short: three dense networks, and the tickets of two."""
    points = [(0, 0, 98.0), (1, 0, 98.2), (2, 0, 95.0), (0, 1, 98.5), (1, 1, 98.6)]
    table = pd.DataFrame(points, columns=["seed", "round", "test_accuracy"]).assign(
        network="fc", kind="train", schedule="iterative", criterion="large_final", mask1="rewind", mask0="zero"
    )
    found = judge("00_lottery_tickets", table.assign(weights_remaining=100.0 - 50 * table["round"])).set_index("claim")
    exceed = found.loc["winning tickets exceed the dense network at moderate pruning (20 % to 80 %)"]
    assert exceed["seeds"] == 2
    assert (exceed["ours"], exceed["beside"]) == (pytest.approx(98.55), pytest.approx(98.1))
    assert exceed["ours"] - exceed["beside"] == pytest.approx(exceed["difference"])
    untested = found.loc["winning tickets match the dense network (3.5 % to 20 % of the weights)"]
    assert untested["verdict"] == "not run" and untested[["ours", "beside"]].isna().all()


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
    assert row["ours"] == 42
    assert row["difference"] == 42 - 40
    assert isinstance(Claim("", "", {}, 1.0).than, float)


def test_the_combined_scorecard_takes_each_claim_from_the_longest_trainings_that_decide_it(
    table, tmp_path, monkeypatch
):
    monkeypatch.setenv("LT_RESULTS", str(tmp_path))
    parts = {"longest": table[table["seed"] == 0], "long": table[table["mask1"] != "reinit"], "short": table}
    for label, part in parts.items():
        tables.write(tmp_path / label / "02_mask1_actions_claims.csv", judge("02_mask1_actions", part))
    found = combined(list(parts)).set_index(["network", "claim"])
    beats, equals = found.loc[("fc", "rewind beats reinit")], found.loc[("fc", "reinit_same_sign is as good as rewind")]
    assert (beats["profile"], beats["seeds"]) == ("short", 3)
    assert (equals["profile"], equals["seeds"]) == ("long", 3)
    low, high = sorted([beats["p"], equals["p"]])
    assert sorted([beats["p_holm"], equals["p_holm"]]) == pytest.approx([2 * low, max(2 * low, high)])
    assert found.loc[("fc", "rewind beats constant"), "verdict"] == "not run"
    assert pd.isna(found.loc[("fc", "rewind beats constant"), "profile"]), "asked for in all, run in none"
    assert found.loc[("conv6", "rewind beats reinit"), "verdict_holm"] == "not run"
    assert len(found) == sum(len(claim.networks) for claims in CLAIMS.values() for claim in claims)
    assert counts(found.reset_index()).loc["fc", ("alone", "reproduced")] == 2


def test_claims_are_shown_with_their_verdict_beside_them_and_in_its_colour(table):
    two = table.assign(network="conv2")
    judged = judge("02_mask1_actions", pd.concat([table, two[two["seed"] == 0]]))
    told = readable(scorecard(judged), digits=1).set_index(["network", "claim"])
    assert list(told)[:4] == ["source", "difference (95 % interval)", "seeds", "verdict"]
    beats = ("fc", "rewind beats reinit")
    row = judged.set_index(["network", "claim"]).loc[beats]
    assert told.loc[beats].iloc[1] == f"{row.difference:+.1f} ({row.low:+.1f} to {row.high:+.1f})"
    assert told.loc[beats, "p"] == "< 0.001" and told.loc[beats, "verdict"] == "reproduced"
    assert told.loc[("conv2", "rewind beats reinit")].iloc[1] == f"{row.difference:+.1f}", "one seed has no interval"
    tested = judged[judged["seeds"] > 0]
    assert "rewind beats constant" not in set(tested["claim"]), "its runs are not in the table"
    assert list(told.index) == list(zip(tested["network"], tested["claim"]))
    shown = lt.claims_table(judged).to_html()
    coloured = re.findall(r"#T_claims_row(\d+)_col\d+(?=[^{}]*\{\s*color: #0072B2)", shown)
    assert [int(i) for i in coloured] == [i for i, verdict in enumerate(tested["verdict"]) if verdict == "reproduced"]


def test_where_nothing_was_tested_a_summary_says_so(monkeypatch, tmp_path, capsys, table):
    monkeypatch.setenv("LT_RESULTS", str(tmp_path))
    nothing = judge("02_mask1_actions", table[table["mask1"] == "rewind"])
    tables.write(tmp_path / "paper" / "02_mask1_actions_claims.csv", nothing)
    summary("paper")
    assert capsys.readouterr().out.startswith("No claim has been tested yet.\n")
    assert "_row0_" not in lt.claims_table(nothing).to_html(), "a row per claim that was tested, and no other"


def test_the_forest_plot_shows_every_claim_under_its_section(table):
    sources = {claim.section.removesuffix(" (?)") for claims in CLAIMS.values() for claim in claims}
    assert sources == set(forest.SECTIONS)
    judged = scorecard(judge("02_mask1_actions", table))
    one_seed = judged.iloc[:1].assign(
        network="conv2", source="LTH", claim="another", seeds=1, low=-float("inf"), high=float("inf")
    )
    tested = judged[judged["seeds"] > 0]
    fc, conv2 = forest.scorecard(pd.concat([judged, one_seed])).axes
    assert (fc.get_title(), conv2.get_title()) == ("FC", "Conv2")
    lines = [tick.get_text().replace("\n", " ") for tick in fc.get_yticklabels()]
    assert lines == [forest.SECTIONS["LTH"], "another", forest.SECTIONS["DLT 3"], *tested["claim"]]

    def drawn(axes: Axes, points: int) -> list[str]:
        """The lines of the figure at which something of so many points is drawn."""
        found = [line.get_ydata() for line in axes.lines if len(line.get_xdata()) == points]
        return [lines[int(heights[0])] for heights in found if len(set(heights)) == 1]

    assert drawn(fc, 1) == drawn(fc, 2) == list(tested["claim"])
    assert (drawn(conv2, 1), drawn(conv2, 2)) == (["another"], [])  # one seed has no interval


def test_labels_of_the_forest_plot_take_few_lines_of_about_equal_length():
    for claim in (claim for claims in CLAIMS.values() for claim in claims):
        lines = forest._label(claim.statement).splitlines()
        assert " ".join(lines) == claim.statement
        assert len(lines) <= -(-len(claim.statement) // (forest.WIDTH - 8)), "no more lines than it takes"
        assert not any(line.startswith("%") for line in lines), "a number stays with its unit"
        lengths = [len(line) for line in lines]
        assert max(lengths) <= min(forest.WIDTH, 2 * min(lengths)), "no single word is left over"


def test_the_forest_plot_tells_short_trainings_from_full_ones(table):
    judged = scorecard(judge("02_mask1_actions", table)).query("seeds > 0")

    def shown(table):
        """The markers in the panel, and what the legend says of markers."""
        figure = forest.scorecard(table)
        markers = [line.get_marker() for line in figure.axes[0].lines if len(line.get_xdata()) == 1]
        return markers, [text.get_text() for text in figure.legends[0].get_texts() if "short" in text.get_text()]

    scales = ["overnight", *["evening"] * (len(judged) - 1)]
    assert shown(judged) == (["o"] * len(judged), [])
    assert shown(judged.assign(scale=scales)) == (["o", *"s" * (len(judged) - 1)], ["square: short (evening)"])


def test_stars_mark_the_points_that_differ_from_the_baseline(table):
    unclear = (table["mask1"] == "reinit") & (table["round"] == 1)
    table.loc[unclear, "test_accuracy"] = [96, 90, 99]

    def starred(table):
        axes = plots.FIGURES["02_mask1_actions"](table).axes[0]
        stars = [list(line.get_xdata()) for line in axes.lines if line.get_marker() == "*" and len(line.get_xdata())]
        return stars, "differs" in " ".join(text.get_text() for text in axes.get_legend().get_texts())

    different = [[2.0], [4.0, 2.0]]  # reinit; reinit_same_sign, by a difference that is always the same
    assert starred(table) == (different, True)
    assert starred(table[table["seed"] == 0]) == ([], False)  # one seed decides nothing, so there is none to explain
    assert starred(table[table["mask1"] != "rewind"]) == ([], False)  # nothing to differ from


def test_the_legend_names_only_what_is_drawn_of_a_sweep_cut_short(table):
    cut = table[(table["mask1"] != "reinit") | (table["round"] == 0)]
    named = [text.get_text() for text in plots.FIGURES["02_mask1_actions"](cut).axes[0].get_legend().get_texts()]
    assert {"rewind", "reinit_same_sign"} <= set(named)
    assert "reinit" not in named


def test_a_family_of_which_only_the_baseline_has_run_has_no_panel():
    every = {"random"}.union(*plots.FAMILIES.values())
    columns = ["criterion", "round", "weights_remaining"]
    table = pd.DataFrame([(name, i, 100 / (1 + i)) for name in every for i in (0, 1)], columns=columns)
    table = table.assign(network="fc", seed=0, test_accuracy=90.0)
    cut = table[~table["criterion"].str.endswith("_sign") | (table["round"] == 0)]

    def titles(table):
        return {axes.get_title() for axes in plots.FIGURES["01_mask_criteria"](table).axes} - {""}

    assert titles(table) == {f"FC, {family}" for family in plots.FAMILIES}
    assert titles(cut) == titles(table) - {"FC, by sign"}


def test_networks_with_a_panel_each_stand_side_by_side_on_axes_of_their_own(table):
    other = table.assign(network="conv2", test_accuracy=table["test_accuracy"] - 40)
    fc, conv2, *_ = plots.FIGURES["02_mask1_actions"](pd.concat([table, other])).axes
    assert [axes.get_title() for axes in (fc, conv2)] == ["FC", "Conv2"]
    assert fc.get_subplotspec().rowspan == conv2.get_subplotspec().rowspan
    assert fc.get_ylim()[0] > conv2.get_ylim()[1]


def test_two_folders_are_compared_run_by_run_whatever_their_precision(tmp_path):
    committed = lt.data.ROOT / "results" / "reference"
    one, other = (tables.kept(committed, name) for name in ("02_mask1_actions", "05_learned_supermasks"))
    mine = other.assign(precision="fp32", key=other["key"].str[::-1]).iloc[1:]
    mine["test_accuracy"] += 2.0 * (mine["kind"] == "learned") * (mine["seed"] == 0)
    tables.keep(tmp_path, "02_mask1_actions", one)
    tables.keep(tmp_path, "05_learned_supermasks", mine)
    found = beside(tmp_path, committed)
    learned = found.loc[("fc", "learned")]
    assert learned.to_dict() == pytest.approx({"runs": 12, "equal": 8, "mean": 2 * 4 / 12, "largest": 2})
    assert found.loc[("conv2", "learned"), "runs"] == 3, "one was left out"
    assert found.loc[("fc", "train"), "equal"] == found.loc[("fc", "train"), "runs"]
    assert list(found.index.get_level_values(0)) == ["fc", "fc", "conv2", "conv2"]
    assert beside(tmp_path / "nowhere", committed).empty
