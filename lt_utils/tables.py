"""Tables of runs as CSV files: sorted, in one format, checked by a schema when written and when read."""

import math
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from lt_utils import store
from lt_utils.actions import MASK0_ACTIONS, MASK1_ACTIONS
from lt_utils.criteria import CRITERIA
from lt_utils.networks import NETWORKS
from lt_utils.runs import KINDS, PRECISIONS, SCHEDULES, Run

OF_A_MASK = ["network", "criterion", "mask1"]  # what tells sweeps of found supermasks apart, seeds aside
FORMAT = "%.7g"  # of numbers in a file: all that fp32 has
VARIANTS = ("winning ticket (iterative)", "one-shot ticket", "ticket's mask, random reinit", "random mask")
NOISY, DROPOUT = "ticket with noise of {:g} sigma", ", dropout"
PROVENANCE = ("version", "commit", "torch", "device", "seconds")


class TableError(ValueError):
    """A table is not what it should be; the message says what to do."""


@cache
def schema() -> Any:
    """The schema of a table of runs."""
    import pandera.pandas as pa  # a second that a worker need not wait

    def names(allowed: Any) -> pa.Column:
        return pa.Column(str, pa.Check.isin(list(allowed)))

    percent = pa.Column(float, pa.Check.in_range(0, 100), coerce=True)
    positive = pa.Column(int, pa.Check.gt(0))
    return pa.DataFrameSchema(
        {
            "network": names(NETWORKS),
            "seed": pa.Column(int, pa.Check.ge(0)),
            "kind": names(KINDS),
            "round": pa.Column(int, pa.Check.ge(0)),
            "criterion": names(CRITERIA),
            "mask1": names(MASK1_ACTIONS),
            "mask0": names(MASK0_ACTIONS),
            "schedule": names(SCHEDULES),
            "dwr": pa.Column(bool),
            "noise": pa.Column(float, pa.Check.ge(0), coerce=True, default=0.0),
            "dropout": pa.Column(float, pa.Check.in_range(0, 1, include_max=False), coerce=True, default=0.0),
            "stride": positive,
            "iterations": positive,
            "batch": positive,
            "eval_every": positive,
            "learning_rate": pa.Column(float, pa.Check.ge(0), coerce=True),
            "precision": names(PRECISIONS),
            "test_images": positive,
            "weights_remaining": percent,
            "test_accuracy": percent,
            "seconds": pa.Column(float, pa.Check.ge(0), coerce=True),
            "key": pa.Column(str, pa.Check.str_matches(r"^[0-9a-f]{20}$")),
        },
        add_missing_columns=True,  # those that a table is too old to have, and that have a default
    )


def rounded(table: pd.DataFrame) -> pd.DataFrame:
    """A table with its numbers as they will be read again once it was written, so that what is concluded from it does
    not depend on whether it was."""
    floats = table.select_dtypes("float")
    return table.assign(**floats.map(lambda value: float(FORMAT % value)))


def write(path: Path, table: pd.DataFrame) -> None:
    """Write a table, aside and renamed; a table of runs is checked first. Its rows are as they were given: sorted."""
    if "key" in table:
        _check(table, path)
    store.write(path, lambda aside: table.to_csv(aside, index=False, float_format=FORMAT, lineterminator="\n"))


def read(path: Path) -> pd.DataFrame:
    """A table that `write` wrote. Raises TableError, with the column at fault, for one that was damaged."""
    try:
        text = {"key": str, "commit": str, "version": str}
        table = pd.read_csv(path, dtype=text, keep_default_na=True)
    except (ValueError, UnicodeDecodeError) as error:
        raise TableError(f"{path} is damaged ({error}): delete it, or restore it with git, and run again.") from error
    return _check(table, path) if "key" in table else table


def files(folder: Path, name: str) -> list[Path]:
    """The files of table `name` in a folder: of runs one per network, NAME_NETWORK.csv (none grows over 1 MB), of
    anything else NAME.csv. Empty if it isn't there."""
    each = [folder / f"{name}_{network}.csv" for network in sorted(NETWORKS)]
    return [path for path in each if path.exists()] or [path for path in [folder / f"{name}.csv"] if path.exists()]


def keep(folder: Path, name: str, table: pd.DataFrame) -> None:
    """Write table `name` into a folder, in its `files`; those of networks that it has no longer go."""
    parts = {f"{name}.csv": table}
    if "key" in table:
        layers = [column for column in table if column.startswith("layer_")]  # of which some networks have fewer
        parts = {
            f"{name}_{network}.csv": rows.drop(columns=[one for one in layers if rows[one].isna().all()])
            for network, rows in table.groupby("network")
        }
    for file, rows in parts.items():
        write(folder / file, rows)
    for file in {f"{name}.csv", *(f"{name}_{network}.csv" for network in NETWORKS)} - set(parts):
        (folder / file).unlink(missing_ok=True)


def kept(folder: Path, name: str) -> pd.DataFrame:
    """The table that `keep` wrote. Raises TableError if there is none, or a file of it was damaged."""
    found = [read(path) for path in files(folder, name)]
    if not found:
        raise TableError(f"{folder} has no table {name}: execute its notebook first.")
    return pd.concat(found, ignore_index=True)


def _check(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    from pandera.errors import SchemaError

    try:
        return schema().validate(table)
    except SchemaError as error:
        why = " ".join(str(error).split())[:200]
        raise TableError(f"{path} is damaged ({why}): delete it, or restore it with git, and run again.") from error


def networks_of(table: pd.DataFrame) -> list[str]:
    """The networks of a table, in the paper's order."""
    return [name for name in NETWORKS if name in set(table["network"])]


def with_variant(table: pd.DataFrame) -> pd.DataFrame:
    """A table of runs with a column `variant`: winning ticket or which of its controls (Frankle and Carbin 2019)."""
    return table.assign(variant=table.apply(_variant, axis=1))


def _variant(row: pd.Series) -> str:
    if row.get("noise", 0):
        return NOISY.format(row["noise"])
    if row["schedule"] == "one_shot":
        name = VARIANTS[1]
    elif row["schedule"] == "ticket":
        name = VARIANTS[2]
    else:
        name = VARIANTS[3] if row["criterion"] == "random" else VARIANTS[0]
    return name + DROPOUT * bool(row.get("dropout", 0))


def check_alike(table: pd.DataFrame, by: list[str]) -> None:
    """Raise ValueError if runs of one network and one value of the columns `by` differ in more than seed and round:
    their mean would pass for one over seeds."""
    fields = [name for name in Run.__annotations__ if name in table and name not in ("network", "seed", "round", *by)]
    values = table.groupby(["network", *by])[fields].nunique().max()
    for name in values.index[values > 1]:
        found = table[name].unique().tolist()
        raise ValueError(
            f"Runs of {' and '.join(['one network', *by])} differ in {name} here ({', '.join(map(repr, found))}), and "
            f"a mean over seeds would mix them: take one, as in table[table[{name!r}] == {found[0]!r}]."
        )


def whole(rows: pd.DataFrame, by: list[str] | None = None) -> pd.DataFrame:
    """The rows of those seeds that have as many rounds as any other (of the same values of the columns `by`). Where a
    sweep was cut short, a mean over a seed's rounds, or the best of them, is about something else for the others."""
    by = by or []
    rounds = rows.groupby([*by, "seed"])["round"].transform("nunique")
    most = rounds.groupby([rows[name] for name in by]).transform("max") if by else rounds.max()
    return rows[rounds == most]


def begun(table: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """What a mean over seeds can show of a sweep of trained networks that was cut short: per network and values of the
    columns `by`, its `whole` seeds, unless it has no pruned network of its own (the dense one, and a first pruning at
    once, are those of others, too). All rows if nothing is pruned yet."""
    lines = [table[name] for name in ("network", *by)]
    own = table["round"] > 0
    if "key" in table:
        own &= ~table.duplicated("key")
    pruned = own.groupby(lines).transform("any")
    return whole(table[pruned], ["network", *by]) if pruned.any() else table


def best_masks(table: pd.DataFrame) -> pd.Series:
    """Best test accuracy in % of found supermasks over all densities, by network, criterion, mask1 and seed; of whole
    seeds alone."""
    return whole(table, OF_A_MASK).groupby([*OF_A_MASK, "seed"])["test_accuracy"].max()


def finished(path: Path) -> dict[str, dict[str, Any]]:
    """The finished runs in a table, by key, in the form of the store's entries."""
    table = read(path)
    if "key" not in table:
        return {}
    entries = {}
    for row in table.to_dict("records"):
        given = {name: value for name, value in row.items() if not (isinstance(value, float) and math.isnan(value))}
        described = {*Run.__annotations__, *PROVENANCE, "key"}
        entries[row["key"]] = {
            "metrics": {name: value for name, value in given.items() if name not in described},
            "provenance": {name: given.get(name, "") for name in PROVENANCE},
        }
    return entries
