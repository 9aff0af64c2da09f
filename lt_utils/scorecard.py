"""The replication's answer in tables: all verdicts of a profile, and its supermasks beside the paper's."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from lt_utils import claims, tables
from lt_utils.lottery import OutOfTime
from lt_utils.notebook import results_folder
from lt_utils.paper import COLUMNS, PAPER
from lt_utils.runs import Run

VERDICTS = ("reproduced", "contradicted", "inconclusive", "not run")


def verdicts(label: str) -> pd.DataFrame:
    """The verdicts of a profile's notebooks, adjusted for their number. OutOfTime if no notebook was executed."""
    paths = sorted(results_folder(label).glob("0[0-5]_*_claims.csv"))
    if not paths:
        raise OutOfTime(f"no verdicts in {results_folder(label)}: execute the notebooks 00 to 05 first.")
    return claims.scorecard(pd.concat([tables.read(path) for path in paths], ignore_index=True))


def combined(labels: list[str]) -> pd.DataFrame:
    """Every claim once per network, from the first of the profiles `labels` in which two seeds or more decide it, else
    from the first that has run it, else "not run"; adjusted for their number. The column `profile` says which it is,
    and is NaN of what no profile has run."""
    found = pd.concat([verdicts(label).assign(profile=label) for label in labels], ignore_index=True)
    found = found[found["seeds"] > 0].assign(evidence=found["seeds"].clip(upper=2))
    found = found.sort_values("evidence", ascending=False, kind="stable").drop_duplicates(["network", "claim"])
    every = pd.DataFrame(
        {"network": network, "source": claim.section, "claim": claim.statement}
        for network in PAPER
        for section in claims.CLAIMS.values()
        for claim in section
        if network in claim.networks
    )
    judged = every.merge(found.drop(columns="source"), how="left", on=["network", "claim"])
    nothing = {"seeds": 0, "direction": "", "verdict": "not run"}
    return claims.scorecard(judged.fillna(nothing).astype({"seeds": int}))


def counts(judged: pd.DataFrame, by: Sequence[str] = ("network",)) -> pd.DataFrame:
    """How many claims have which verdict, per network or what else `by` names: alone, and adjusted for the number of
    claims."""
    networks = pd.Categorical(judged["network"], list(PAPER))
    groups = judged.assign(network=networks).groupby(list(by), observed=True)
    alone, adjusted = (groups[name].value_counts().unstack(fill_value=0) for name in ("verdict", "verdict_holm"))
    both = pd.concat({"alone": alone, "after Holm": adjusted}, axis=1)
    columns = [(how, verdict) for how in ("alone", "after Holm") for verdict in VERDICTS]
    return both.reindex(columns=columns, fill_value=0)


def supermasks(label: str) -> pd.DataFrame:
    """Best test accuracy of supermasks in %, mean over seeds: per network ours, the paper's, and the difference in
    points. The columns "mask" take the best criterion and density, as the paper's do."""
    rows = {}
    found, learned = (_table(label, name) for name in ("04_supermasks", "05_learned_supermasks"))
    present = pd.concat([found["network"], learned["network"]]).unique()
    for network in (name for name in PAPER if name in present):
        ours = pd.Series([_found(found[found["network"] == network], action) for action in claims.KINDS_OF_WEIGHTS]
                         + _learned(learned[learned["network"] == network]), COLUMNS)  # fmt: skip
        paper = pd.Series(PAPER[network], COLUMNS)
        for source, values in (("here", ours), ("paper", paper), ("difference", ours - paper)):
            rows[network, source] = values
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(COLUMNS)).astype(float).round(1)


def _table(label: str, name: str) -> pd.DataFrame:
    columns = ["network", "kind", "criterion", "mask1", "dwr", "seed", "round", "test_accuracy"]
    there = tables.files(results_folder(label), name)
    return tables.kept(results_folder(label), name) if there else pd.DataFrame(columns=columns)


def _found(table: pd.DataFrame, action: str) -> float:
    """The best criterion's mean over seeds of the best density."""
    return tables.best_masks(table[table["mask1"] == action]).groupby("criterion").mean().max()


def _learned(table: pd.DataFrame) -> list[float]:
    learned, trained = table[table["kind"] == "learned"], table[table["kind"] == "train"]
    variants = [
        learned[(learned["dwr"] == dwr) & (learned["mask1"] == action)]["test_accuracy"].mean()
        for dwr in (False, True)
        for action in claims.KINDS_OF_WEIGHTS
    ]
    return [*variants, trained["test_accuracy"].mean()]


def beside(ours: Path, theirs: Path) -> pd.DataFrame:
    """How far apart the tables of two folders are in the same runs, whatever the precision of either: per network and
    kind the number of runs in both, of those with equal test accuracy, and the mean and largest difference in points.
    Empty where the two have nothing in common."""
    same = [name for name in Run.__annotations__ if name != "precision"]
    both = _runs(ours).merge(_runs(theirs), on=same, suffixes=("", " there"))
    both["apart"] = (both["test_accuracy"] - both["test_accuracy there"]).abs()
    groups = both.groupby([pd.Categorical(both["network"], list(PAPER)), "kind"], observed=True)["apart"]
    found = groups.agg(runs="count", equal=lambda apart: (apart == 0).sum(), mean="mean", largest="max")
    return found.rename_axis(["network", "kind"])


def _runs(folder: Path) -> pd.DataFrame:
    """The different runs in a folder's tables."""
    found = [tables.read(path) for path in sorted(folder.glob("0[0-5]_*.csv"))]
    columns = [*Run.__annotations__, "key", "test_accuracy"]
    found = [table[columns] for table in found if "key" in table] or [pd.DataFrame(columns=columns)]
    return pd.concat(found, ignore_index=True).drop_duplicates("key")
