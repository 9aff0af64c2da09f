"""Tests over seeds: t tests of paired differences, their intervals, and the adjustment for their number."""

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit

LEVEL = 0.05


def standard_error(values: pd.Series) -> float:
    """Of the mean; above 0 also for seeds that agree to the last digit."""
    return max(values.sem(), 1e-9)


def p_of_zero(values: pd.Series) -> float:
    """p of the two-sided t test that the mean is 0; 1 for fewer than two values."""
    return 1.0 if len(values) < 2 else 2 * stdtr(len(values) - 1, -abs(values.mean()) / standard_error(values))


def interval(values: pd.Series) -> tuple[float, float]:
    """95 % t interval of the mean; unbounded for fewer than two values."""
    if len(values) < 2:
        return -float("inf"), float("inf")
    half = stdtrit(len(values) - 1, 1 - LEVEL / 2) * values.sem()
    return values.mean() - half, values.mean() + half


def holm(p: pd.Series) -> pd.Series:
    """p values adjusted for their number after Holm (1979); those that are not numbers don't count."""
    ordered = p.dropna().sort_values()
    factors = np.arange(len(ordered), 0, -1)
    return (ordered * factors).cummax().clip(upper=1.0).reindex(p.index)
