"""How much of the paper is run: the one table of scales, and the settings of a notebook made from it."""

import math
import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from functools import cache
from numbers import Integral, Real
from typing import Any

import pandas as pd
import torch

from lt_utils.actions import MASK0_ACTIONS, MASK1_ACTIONS
from lt_utils.criteria import CRITERIA
from lt_utils.networks import NETWORKS, cpu_has_bf16

PRECISIONS = ("fp32", "bf16")
NAMED = {  # parameters that are names: what one of them is, and which there are
    "networks": ("network", NETWORKS),
    "criteria": ("criterion", CRITERIA),
    "actions": ("action", MASK0_ACTIONS | MASK1_ACTIONS),
}


@dataclass(frozen=True)
class Profile:
    """A scale. What a network's own row in `NETWORKS` says (learning rate, pruning rates) holds at every scale."""

    networks: tuple[str, ...]
    supermask_networks: tuple[str, ...]  # the same, in the notebooks on supermasks
    seeds: int  # networks per point; the paper has 5
    rounds: int  # pruning rounds
    stride: int  # of the paper's pruning rounds in one of ours: a round keeps rate^stride
    iterations: int | None  # of one training; None: the network's own full length
    eval_every: int  # iterations between two validations; 100 in the authors' code
    levels: tuple[int, ...]  # found supermasks keep rate^k of a layer, for these k
    mask_epochs: int  # of learning a supermask; 2,000 in the authors' code (FC)
    mask_eval_every: int
    mask_rate: float | None = None  # learning rate of it; None: the network's own
    mask_seeds: int | None = None  # of the networks for which a mask is learned; None: all
    criteria: tuple[str, ...] | None = None  # of found supermasks; None: all
    actions: tuple[str, ...] | None = None  # mask-1 or mask-0 actions; None: all
    test_images: int = 10_000  # on which a supermask's test accuracy is read
    precision: str | None = None  # of the matrix products, fp32 or bf16; None: bf16 where the hardware has it
    conv: dict[str, Any] = field(default_factory=dict)  # what differs on Conv2, Conv4 and Conv6


SUPERMASKS = ("found", "learned")
SHOWN = {  # in a notebook on retrained networks, or on such supermasks
    None: ("rounds", "stride", "iterations", "eval_every"),
    "found": ("iterations", "eval_every", "levels", "criteria", "test_images"),
    "learned": ("mask_epochs", "mask_eval_every", "mask_rate", "test_images", "iterations", "eval_every"),
}
FEW_CRITERIA = ("large_final", "large_final_same_sign", "large_final_diff_sign", "random")

PROFILES = {
    # everything, tiny: checks that it runs, shows nothing
    "smoke": Profile(("fc",), ("fc",), 1, 2, 8, 30, 15, (0, 12, 24), 1, 110),
    # real conclusions on a laptop: 5 rounds reach the paper's 20th
    "quick": Profile(
        ("fc",),
        ("fc", "conv2"),
        seeds=3,
        rounds=5,
        stride=4,
        iterations=1374,
        eval_every=458,
        levels=tuple(range(0, 25, 2)),
        mask_epochs=8,
        mask_eval_every=440,
        mask_rate=300.0,
        conv={
            "seeds": 1,
            "iterations": 750,
            "eval_every": 375,
            "levels": tuple(range(0, 25, 4)),
            "criteria": FEW_CRITERIA,
            "mask_epochs": 1,
            "mask_eval_every": 180,
            "mask_rate": 1000.0,
            "test_images": 2000,
        },
    ),
    # what two CPU cores do in an evening, and Conv4 and Conv6 in a night each: every notebook on the convolutional
    # networks, trained for a twentieth of their length and less
    "evening": Profile(
        ("conv2", "conv4", "conv6"),
        ("conv2", "conv4", "conv6"),
        seeds=3,
        rounds=3,
        stride=6,
        iterations=1000,
        eval_every=250,
        levels=tuple(range(0, 25, 4)),
        criteria=(*FEW_CRITERIA, "magnitude_increase_diff_sign"),
        mask_epochs=3,
        mask_eval_every=180,
        mask_seeds=1,
        conv={"mask_rate": 1000.0, "test_images": 2000},
    ),
    # what two CPU cores do in a night: trainings of full length, fewer of them; every fourth round of the paper
    "overnight": Profile(
        ("fc",),
        ("fc", "conv2", "conv4", "conv6"),
        seeds=5,
        rounds=6,
        stride=4,
        iterations=None,
        eval_every=100,
        levels=tuple(range(25)),
        mask_epochs=200,
        mask_eval_every=220,
        conv={
            "seeds": 3,
            "levels": tuple(range(0, 25, 4)),
            "mask_epochs": 20,
            "mask_eval_every": 180,
            "mask_seeds": 1,
        },
    ),
    # the paper's own scale (Zhou et al. 2019, supplement; authors' code)
    "paper": Profile(
        tuple(NETWORKS),
        tuple(NETWORKS),
        seeds=5,
        rounds=24,
        stride=1,
        iterations=None,
        eval_every=100,
        levels=tuple(range(25)),
        mask_epochs=2000,
        mask_eval_every=220,
        precision="fp32",
        # the fast precision; validation after every epoch; FC's rate for all, as Conv2's own is too high for so long
        conv={"precision": "bf16", "mask_eval_every": 180, "mask_rate": 100.0},
    ),
}


@dataclass(frozen=True)
class Settings:
    """A profile with a notebook's parameters applied: what every sweep of that notebook is made from."""

    profile: str
    scale: Profile
    seeds: tuple[int, ...]
    label: str  # folder under results/ and figures/: the profile's name, or `NAME-custom` once a parameter is given
    supermasks: str | None = None  # found or learned, in a notebook on such

    def at(self, network: str) -> Profile:
        """The scale at which a network is run."""
        convolutional = any(layer.role == "conv" for layer in NETWORKS[network].layers)
        return replace(self.scale, **(self.scale.conv if convolutional else {}), conv={})

    def seeds_of(self, network: str, kind: str = "train") -> tuple[int, ...]:
        """The seeds with which a network is run: trained, or its supermasks found or learned."""
        own = self.at(network)
        return self.seeds[: own.seeds][: own.mask_seeds if kind == "learned" else None]

    def _repr_html_(self) -> str:
        """What a notebook shows of it: the numbers per network, of those that matter there."""
        columns = {}
        for network in self.scale.networks:
            own = self.at(network)
            columns[network] = {
                "seeds": self.seeds_of(network),
                **{name: getattr(own, name) for name in SHOWN[self.supermasks]},
                "iterations": self.iterations(network),
                "precision": self.precision(network),
            }
            if self.supermasks == "found":
                columns[network]["criteria"] = own.criteria or "all"
            if self.supermasks == "learned":
                columns[network]["seeds of learned masks"] = self.seeds_of(network, "learned")
                columns[network]["mask_rate"] = own.mask_rate or _rates(*NETWORKS[network].mask_rates)
        return f"<b>{self.label}</b>" + pd.DataFrame(columns).map(_words).to_html()

    def precision(self, network: str) -> str:
        """Precision of a network's matrix products: the profile's; or what the environment's `PRECISION` says of all
        networks (`fp32`) or of single ones (`fc=bf16 conv2=fp32`); or the machine's fast one."""
        own = self.at(network).precision
        if own:
            return own
        asked = {}
        for word in os.environ.get("PRECISION", "").split():
            whose, _, precision = word.rpartition("=")
            whose = whose and choose("network in PRECISION", whose, NETWORKS)
            asked[whose] = choose("PRECISION", precision, PRECISIONS)
        return asked.get(network) or asked.get("") or fast_precision()

    def iterations(self, network: str) -> int:
        """Training iterations of a network at this scale."""
        return self.at(network).iterations or NETWORKS[network].iterations


def _rates(without: float, dwr: float) -> float | str:
    return without if without == dwr else f"{without}, with DWR {dwr}"


def _words(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def fast_precision() -> str:
    """bf16 where the first GPU, or without one the CPU, has it in hardware; else fp32."""
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if cpu_has_bf16() else "fp32"


def choose(kind: str, name: str, names: Collection[str]) -> str:
    """`name`, if it is one of `names`; otherwise a ValueError that lists them."""
    if name not in names:
        raise ValueError(f"unknown {kind} {name!r}: choose one of {', '.join(sorted(names))}.")
    return name


def _names(name: str, given: list[str] | str) -> tuple[str, ...]:
    """One name or several, each of which must be known."""
    kind, known = NAMED[name]
    names = (given,) if isinstance(given, str) else tuple(dict.fromkeys(given))
    if not names:
        raise ValueError(f"{name} = {given!r} is impossible: give at least one {kind}, or None.")
    return tuple(choose(kind, one, known) for one in names)


def _numbers(name: str, given: Iterable[int] | int) -> tuple[int, ...]:
    """Whole numbers from 0 on, each of them once; of seeds a count will do."""
    count = name == "seeds" and isinstance(given, Integral)
    numbers = tuple(range(given) if count else given if isinstance(given, Iterable) else ())
    right = all(isinstance(one, Integral) and one >= 0 for one in numbers)
    if not numbers or not right or len(set(numbers)) < len(numbers):
        wanted = "a count above 0, or a list" if name == "seeds" else "a list"
        raise ValueError(f"{name} = {given!r} is impossible: give {wanted} of different numbers from 0 on, or None.")
    return numbers


def _number(name: str, given: float) -> float:
    """A number above 0; all but the learning rate are counts."""
    kinds, wanted = (Real, "a number") if name == "mask_rate" else (Integral, "a whole number")
    if not isinstance(given, kinds) or not 0 < given < math.inf:
        raise ValueError(f"{name} = {given!r} is impossible: give {wanted} above 0, or None for the profile's own.")
    return given


def _checked(name: str, given: Any) -> Any:
    """A field of `Profile` as it is given in place of the profile's own."""
    if name == "precision":
        return choose(name, given, PRECISIONS)
    return (_names if name in NAMED else _numbers if name == "levels" else _number)(name, given)


@cache
def deepest_round(network: str, stride: int) -> int:
    """The last pruning round in which any layer of a network loses a weight."""
    left, deepest = [math.prod(layer.shape) for layer in NETWORKS[network].layers], 0
    while any(pruned := NETWORKS[network].prune_counts(left, stride)):
        left, deepest = [n - lost for n, lost in zip(left, pruned)], deepest + 1
    return deepest


def settings(
    profile: str,
    *,
    supermasks: str | None = None,
    networks: list[str] | str | None = None,
    seeds: int | list[int] | None = None,
    **overrides: int | None,
) -> Settings:
    """The settings of `profile`, with every parameter that is not None in place of the profile's own.

    `supermasks`, "found" or "learned", takes the profile's networks for notebooks on those. `seeds` is a count or the
    seeds themselves; `overrides` are fields of `Profile` (rounds, iterations, eval_every...).
    Raises ValueError, with the right choices, for a wrong name or an impossible number.
    """
    own = PROFILES[choose("profile", profile, PROFILES)]
    if supermasks is not None:
        choose("supermasks", supermasks, SUPERMASKS)
        own = replace(own, networks=own.supermask_networks)
    overrides["networks"] = networks
    given = {choose("parameter", k, list(Profile.__annotations__)): v for k, v in overrides.items() if v is not None}
    given = {name: _checked(name, value) for name, value in given.items()}
    chosen = _numbers("seeds", own.seeds if seeds is None else seeds)
    if seeds is not None:
        given = {"mask_seeds": None} | given | {"seeds": len(chosen)}
    conv = {name: value for name, value in own.conv.items() if name not in given}
    usual = Settings(profile, own, tuple(range(own.seeds)), profile, supermasks)
    ours = replace(usual, scale=replace(own, **given, conv=conv), seeds=chosen)
    for network in ours.scale.networks:
        rounds, deepest = ours.at(network).rounds, deepest_round(network, ours.at(network).stride)
        if rounds > deepest:
            left = f"{network} has nothing left to prune after {deepest}"
            raise ValueError(f"rounds = {rounds} is impossible: {left}; give so many or fewer.")
    changed = chosen != usual.seeds or any(ours.at(name) != usual.at(name) for name in ours.scale.networks)
    label = f"{profile}-custom" if changed else profile
    return replace(ours, label=os.environ.get("LT_LABEL") or label)
