"""Tables of runs as CSV files: sorted, in one format, checked by a schema when written and when read."""

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pandera.pandas as pa

from lt_utils import store
from lt_utils.actions import MASK0_ACTIONS, MASK1_ACTIONS
from lt_utils.criteria import CRITERIA
from lt_utils.networks import NETWORKS
from lt_utils.runs import KINDS, PRECISIONS, SCHEDULES, Run

PROVENANCE = ("version", "commit", "torch", "device", "seconds")
PERCENT = pa.Check.in_range(0, 100)


class TableError(ValueError):
    """A table is not what it should be; the message says what to do."""


def _names(names: Any) -> pa.Column:
    return pa.Column(str, pa.Check.isin(list(names)))


RUNS = pa.DataFrameSchema(
    {
        "network": _names(NETWORKS),
        "seed": pa.Column(int, pa.Check.ge(0)),
        "kind": _names(KINDS),
        "round": pa.Column(int, pa.Check.ge(0)),
        "criterion": _names(CRITERIA),
        "mask1": _names(MASK1_ACTIONS),
        "mask0": _names(MASK0_ACTIONS),
        "schedule": _names(SCHEDULES),
        "dwr": pa.Column(bool),
        "iterations": pa.Column(int, pa.Check.gt(0)),
        "learning_rate": pa.Column(float, pa.Check.ge(0), coerce=True),
        "precision": _names(PRECISIONS),
        "weights_remaining": pa.Column(float, PERCENT, coerce=True),
        "test_accuracy": pa.Column(float, PERCENT, coerce=True),
        "seconds": pa.Column(float, pa.Check.ge(0), coerce=True),
        "key": pa.Column(str, pa.Check.str_matches(r"^[0-9a-f]{20}$")),
    },
    name="runs",
)


def write(path: Path, table: pd.DataFrame) -> None:
    """Write a table, aside and renamed; a table of runs is checked first. Its rows are as they were given: sorted."""
    if "key" in table:
        _check(table, path)
    store.write(path, lambda aside: table.to_csv(aside, index=False, float_format="%.7g", lineterminator="\n"))


def read(path: Path) -> pd.DataFrame:
    """A table that `write` wrote. Raises TableError, with the column at fault, for one that was damaged."""
    try:
        table = pd.read_csv(path, dtype={"key": str, "commit": str, "version": str}, keep_default_na=True)
    except (ValueError, UnicodeDecodeError) as error:
        raise TableError(f"{path} is damaged ({error}): delete it, or restore it with git, and run again.") from error
    return _check(table, path) if "key" in table else table


def _check(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    try:
        return RUNS.validate(table)
    except pa.errors.SchemaError as error:
        why = " ".join(str(error).split())[:200]
        raise TableError(f"{path} is damaged ({why}): delete it, or restore it with git, and run again.") from error


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
