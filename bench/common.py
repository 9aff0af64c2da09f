"""What the measurements share. Not in `__init__`: the baselines import nothing of `lt_utils`."""

from pathlib import Path

import pandas as pd
import torch

from lt_utils import store, tables
from lt_utils.profiles import fast_precision


def formats() -> tuple[str, ...]:
    """The number formats that the machine computes in: no emulated one, which is many times slower."""
    return tuple(dict.fromkeys(("fp32", fast_precision())))


def keep(path: Path, found: pd.DataFrame, by: list[str]) -> None:
    """Write `found` into a table, in the place of rows that have the same `by`; other rows stay."""
    if path.exists():
        old = tables.read(path)
        measured = pd.MultiIndex.from_frame(old[by]).isin(pd.MultiIndex.from_frame(found[by]))
        found = pd.concat([old[~measured], found], ignore_index=True)
    tables.write(path, found)


def machine_name(device: str) -> str:
    """What a table says it was measured on."""
    return f"{store.device_name(device)}, {torch.get_num_threads()} threads, torch {torch.__version__}"
