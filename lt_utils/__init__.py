"""Replication of *Deconstructing Lottery Tickets: Zeros, Signs, and the Supermask* (Zhou et al. 2019).

    table = lt.run(lt.sweep(lt.settings("quick"), criterion=["large_final", "random"]))

See `runs.Run` for what a run is, and the notebooks for the paper's sections.
"""

from lt_utils import cpu  # noqa: F401 - its settings come before anything that computes
from lt_utils.actions import MASK0_ACTIONS, MASK1_ACTIONS
from lt_utils.criteria import CRITERIA
from lt_utils.lottery import execute, run
from lt_utils.networks import NETWORKS
from lt_utils.notebook import (
    accuracies,
    best_supermasks,
    claims_table,
    conclude,
    export,
    full,
    per_network,
    publish,
    sample_weights,
)
from lt_utils.profiles import PROFILES, settings
from lt_utils.runs import Run, sweep
from lt_utils.scorecard import counts, supermasks, verdicts
from lt_utils.tickets import load_ticket, save_ticket

__all__ = [
    "CRITERIA",
    "MASK0_ACTIONS",
    "MASK1_ACTIONS",
    "NETWORKS",
    "PROFILES",
    "Run",
    "accuracies",
    "best_supermasks",
    "claims_table",
    "conclude",
    "counts",
    "execute",
    "export",
    "full",
    "load_ticket",
    "per_network",
    "publish",
    "run",
    "sample_weights",
    "save_ticket",
    "settings",
    "supermasks",
    "sweep",
    "verdicts",
]
