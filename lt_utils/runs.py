"""A run as frozen data: one training of one network (or one supermask), its identity, and what it builds on."""

import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any

from lt_utils.actions import MASK0_ACTIONS, MASK1_ACTIONS
from lt_utils.criteria import CRITERIA
from lt_utils.networks import NETWORKS
from lt_utils.profiles import PRECISIONS, Profile, Settings, choose

RESULTS_VERSION = 2  # part of every identity: raise it when a change of the code changes results
DWR_VERSION = 3  # in its place, of masks learned with DWR; in 2 the gradient took the factor for a constant

WINNER = ("large_final", "zero")  # criterion and mask-0 action of winning tickets
KINDS = {
    "train": "weights are trained: the dense network (round 0) and its pruned descendants",
    "found": "a supermask: the mask of a one-shot pruning, put on untrained weights and evaluated (section 5)",
    "learned": "a supermask learned by training a score per weight (section 5.2)",
}
SCHEDULES = {
    "iterative": "round r prunes what round r - 1 kept",
    "one_shot": "round r prunes the dense network to the density of round r at once",
    "ticket": "round r takes the mask of round r of the winning ticket (large_final, rewind, zero)",
}


@dataclass(frozen=True)
class Run:
    """One training to be done or found again. Two runs with equal `key` have equal results."""

    network: str = "fc"
    seed: int = 0
    kind: str = "train"
    round: int = 0  # pruning rounds behind it; for a found supermask the k of rate^k
    criterion: str = "large_final"
    mask1: str = "rewind"
    mask0: str = "zero"
    schedule: str = "iterative"
    dwr: bool = False  # dynamic weight rescaling, learned supermasks only
    noise: float = 0.0  # Gaussian, on what kept weights restart from, in standard deviations of the layer's start
    dropout: float = 0.0  # rate, in training, of the outputs of the dense layers but the last
    stride: int = 1  # a round keeps rate^stride of a layer
    iterations: int = 1
    batch: int = 60
    learning_rate: float = 0.0
    eval_every: int = 100  # iterations between two validations
    precision: str = "fp32"  # of the matrix products: fp32 or bf16; the values themselves are fp32
    test_images: int = 10_000  # on which a supermask's test accuracy is read: the first so many of the test set

    def __post_init__(self) -> None:
        for field in fields(self):  # a table's numbers are NumPy's
            kind, given = type(field.default), getattr(self, field.name)
            if kind is int and given != int(given):
                raise ValueError(f"impossible run: {field.name} = {given!r} is not a whole number.")
            object.__setattr__(self, field.name, kind(given))
        tables = {
            "network": NETWORKS,
            "kind": KINDS,
            "criterion": CRITERIA,
            "schedule": SCHEDULES,
            "mask1": MASK1_ACTIONS,
            "mask0": MASK0_ACTIONS,
            "precision": PRECISIONS,
        }
        for field, names in tables.items():
            choose(field, getattr(self, field), names)
        if self.seed < 0 or self.round < 0 or min(self.stride, self.batch, self.eval_every, self.iterations) < 1:
            raise ValueError(f"impossible run: seed and round start at 0, counts at 1, in {self}.")
        if not 0 <= self.dropout < 1 or not 0 <= self.noise < math.inf:
            raise ValueError(f"impossible run: dropout is at least 0 and below 1, noise at least 0, in {self}.")
        if self.noise and (self.kind, self.schedule) != ("train", "ticket"):
            raise ValueError(f"noise = {self.noise:g} is for trained tickets: give schedule=['ticket'], too.")

    @cached_property
    def canonical(self) -> "Run":
        """The same run with every field that cannot matter at its default, so that equal work is done once."""
        if self.kind == "learned":
            given = {"round": 0, "schedule": "iterative", "stride": 1, "dropout": 0.0}
            return replace(self, criterion=WINNER[0], mask0=WINNER[1], **given)
        if self.kind == "found":
            return replace(self, mask0="zero", schedule="one_shot", round=self.round * self.stride, stride=1)
        if self.round == 0:
            return Run(
                self.network,
                self.seed,
                iterations=self.iterations,
                batch=self.batch,
                learning_rate=self.learning_rate,
                eval_every=self.eval_every,
                precision=self.precision,
                dropout=self.dropout,
            )
        if self.round == 1 and not self.noise and (self.schedule == "one_shot" or self.treatment == WINNER):
            return replace(self, schedule="iterative")  # at the first round all schedules are the same
        return self

    @property
    def treatment(self) -> tuple[str, str]:
        """Criterion and mask-0 action."""
        return self.criterion, self.mask0

    @cached_property
    def key(self) -> str:
        """Content hash over the fields that differ from their defaults, so that a new field leaves old keys valid."""
        run = self.canonical
        given = {f.name: getattr(run, f.name) for f in fields(Run) if getattr(run, f.name) != f.default}
        return hashlib.sha256(json.dumps([run.version, given], sort_keys=True).encode()).hexdigest()[:20]

    @property
    def version(self) -> int:
        """Of the code, as far as it changes the run's results."""
        return DWR_VERSION if self.dwr else RESULTS_VERSION

    @cached_property
    def parent(self) -> "Run | None":
        """The run whose weights (or, on schedule `ticket`, whose mask) this one starts from."""
        run = self.canonical
        if run.kind == "learned" or (run.kind == "train" and run.round == 0):
            return None
        if run.schedule == "ticket":
            given = {"schedule": "iterative", "mask1": "rewind", "noise": 0.0}
            return replace(run, criterion=WINNER[0], mask0=WINNER[1], **given)
        return replace(run, kind="train", round=run.round - 1 if run.schedule == "iterative" else 0).canonical

    @property
    def has_heirs(self) -> bool:
        """Whether another run may start from this one's final weights."""
        run = self.canonical
        return run.kind == "train" and run.schedule == "iterative"

    @property
    def stack_key(self) -> tuple:
        """Runs with the same one can be trained in one stack."""
        return (
            self.network,
            self.kind,
            self.iterations,
            self.batch,
            self.learning_rate,
            self.eval_every,
            self.precision,
            self.dropout,
            self.test_images,
        )

    @property
    def layers(self) -> int:
        """Number of layers of the network."""
        return len(NETWORKS[self.network].layers)

    def prune_counts(self, kept: list[int]) -> list[int]:
        """How many weights to prune from each layer, of `kept` weights per layer."""
        rounds = self.round if self.schedule == "one_shot" else 1
        return NETWORKS[self.network].prune_counts(kept, self.stride * rounds)

    def describe(self) -> dict[str, Any]:
        """All fields, as plain data."""
        return asdict(self)

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "Run":
        """The run that a row of a table is about."""
        return cls(**{f.name: row[f.name] for f in fields(cls)})


def sweep(settings: Settings, kind: str = "train", **axes: Any) -> list[Run]:
    """The runs of a sweep: networks x seeds x rounds x the product of `axes`, values of fields of `Run`: lists, or one.

    `sweep(s, criterion=["large_final", "random"])` is every round of both, for every network and seed of `s`. An axis
    that is not a field of `Run` raises ValueError with the list of fields.
    """
    for axis in axes:
        choose("axis", axis, [f.name for f in fields(Run)])
    axes = {name: [v] if isinstance(v, str) or not isinstance(v, Iterable) else list(v) for name, v in axes.items()}
    runs = []
    for network in settings.scale.networks:
        scale = settings.at(network)
        common = _common(settings, choose("kind", kind, KINDS), network) | {"precision": settings.precision(network)}
        axes_here = {"seed": settings.seeds_of(network, kind), **_own_axes(scale, kind), **axes}
        for values in itertools.product(*axes_here.values()):
            run = common | dict(zip(axes_here, values))
            if kind == "learned":
                run.setdefault("learning_rate", scale.mask_rate or NETWORKS[network].mask_rates[bool(run.get("dwr"))])
            runs.append(Run(network=network, kind=kind, **run))
    return runs


def _own_axes(scale: Profile, kind: str) -> dict[str, Any]:
    """The axes that a kind of run has without being asked: pruning levels, and the criteria of found supermasks."""
    return {
        "train": {"round": range(scale.rounds + 1)},
        "found": {"round": scale.levels, "criterion": scale.criteria or tuple(CRITERIA)},
        "learned": {},
    }[kind]


def _common(settings: Settings, kind: str, network: str) -> dict[str, Any]:
    """The fields that all runs of a kind share: how a network is trained."""
    scale = settings.at(network)
    if kind == "learned":
        batch, training_images = 250, {"mnist": 55_000, "cifar10": 45_000}[NETWORKS[network].dataset]
        return {
            "iterations": scale.mask_epochs * (training_images // batch),
            "batch": batch,
            "eval_every": scale.mask_eval_every,
            "test_images": scale.test_images,
        }
    common = {
        "iterations": settings.iterations(network),
        "learning_rate": NETWORKS[network].learning_rate,
        "eval_every": scale.eval_every,
    }
    if kind == "found":
        return common | {"schedule": "one_shot", "test_images": scale.test_images}
    return common | {"stride": scale.stride}
