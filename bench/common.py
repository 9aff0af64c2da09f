"""What the measurements share. Not in `__init__`: the baselines import nothing of `lt_utils`."""

import os
from pathlib import Path
from unittest import mock

import pandas as pd
import torch

from lt_utils import store, tables
from lt_utils.lottery import execute
from lt_utils.profiles import fast_precision
from lt_utils.runs import Run


def formats() -> tuple[str, ...]:
    """The number formats that the machine computes in: no emulated one, which is slower than fp32."""
    return tuple(dict.fromkeys(("fp32", fast_precision())))


def keep(path: Path, found: pd.DataFrame, by: list[str]) -> None:
    """Write `found` into a table, in the place of rows that have the same `by`; other rows stay."""
    if path.exists():
        old = tables.read(path)
        measured = pd.MultiIndex.from_frame(old[by]).isin(pd.MultiIndex.from_frame(found[by]))
        found = pd.concat([old[~measured], found], ignore_index=True)
    tables.write(path, found)


def curves(runs: list[Run]) -> list[list[list[float]]]:
    """The [iteration, validation loss, validation accuracy] of each run, trained if it is not in the store: that a
    committed table has its row does not do, as tables have no curves."""
    with mock.patch.dict(os.environ, FRESH="1"):
        execute(runs)
        return [store.metrics(run)["history"] for run in runs]


def machine_name(device: str) -> str:
    """What a table says it was measured on."""
    return f"{store.device_name(device)}, {torch.get_num_threads()} threads, torch {torch.__version__}"
