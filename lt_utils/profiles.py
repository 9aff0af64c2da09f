"""How much of the paper is run: the one table of scales, and the settings of a notebook made from it."""

from dataclasses import dataclass, replace

import torch

from lt_utils.networks import NETWORKS


@dataclass(frozen=True)
class Profile:
    """A scale. What a network's own row in `NETWORKS` says (learning rate, pruning rates) holds at every scale."""

    networks: tuple[str, ...]
    seeds: int  # networks per point; the paper has 5
    rounds: int  # pruning rounds
    stride: int  # of the paper's pruning rounds in one of ours: a round keeps rate^stride
    iterations: int | None  # of one training; None: the network's own full length
    eval_every: int  # iterations between two validations; 100 in the authors' code
    levels: tuple[int, ...]  # found supermasks keep rate^k of a layer, for these k
    mask_epochs: int  # of learning a supermask; 2,000 in the authors' code (FC)
    mask_rate: float  # learning rate of it; 100 in the authors' code (FC)
    mask_eval_every: int
    precision: str | None = None  # of the matrix products, fp32 or bf16; None: bf16 where the hardware has it


PROFILES = {
    # everything, tiny: checks that it runs, shows nothing
    "smoke": Profile(("fc",), 1, 2, 8, 30, 15, (0, 12, 24), 1, 300.0, 110),
    # real conclusions on a laptop: 6 rounds reach the paper's 18th
    "quick": Profile(("fc",), 3, 6, 3, 1603, 458, tuple(range(0, 25, 2)), 8, 300.0, 440),
    # the paper's own scale (Zhou et al. 2019, supplement; authors' code)
    "paper": Profile(
        ("fc", "conv2", "conv4", "conv6"), 5, 24, 1, None, 100, tuple(range(25)), 2000, 100.0, 220, "fp32"
    ),
}


@dataclass(frozen=True)
class Settings:
    """A profile with a notebook's parameters applied: what every sweep of that notebook is made from."""

    profile: str
    scale: Profile
    seeds: tuple[int, ...]

    @property
    def label(self) -> str:
        """Folder under results/ and figures/: the profile's name, or `NAME-custom` once a parameter differs."""
        changed = self.scale != PROFILES[self.profile] or self.seeds != tuple(range(self.scale.seeds))
        return f"{self.profile}-custom" if changed else self.profile

    @property
    def precision(self) -> str:
        """Precision of the matrix products: the profile's, or the machine's fast one."""
        return self.scale.precision or fast_precision()

    def iterations(self, network: str) -> int:
        """Training iterations of a network at this scale."""
        return self.scale.iterations or NETWORKS[network].iterations


def fast_precision() -> str:
    """bf16 where the first GPU, or without one the CPU, has it in hardware; else fp32."""
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    has = getattr(torch.cpu, "get_capabilities", dict)()
    return "bf16" if has.get("avx512_bf16") or has.get("amx_bf16") else "fp32"


def choose(kind: str, name: str, names: list[str] | dict) -> str:
    """`name`, if it is one of `names`; otherwise a ValueError that lists them."""
    if name not in names:
        raise ValueError(f"unknown {kind} {name!r}: choose one of {', '.join(sorted(names))}.")
    return name


def settings(
    profile: str, *, networks: list[str] | None = None, seeds: int | list[int] | None = None, **overrides: int | None
) -> Settings:
    """The settings of `profile`, with every parameter that is not None in place of the profile's own.

    `seeds` is a count or the seeds themselves; `overrides` are fields of `Profile` (rounds, iterations, eval_every...).
    Raises ValueError, with the right choices, for a wrong name or an impossible number.
    """
    scale = PROFILES[choose("profile", profile, PROFILES)]
    given = {choose("parameter", k, list(Profile.__annotations__)): v for k, v in overrides.items() if v is not None}
    for name, value in given.items():
        if name not in ("levels", "precision") and not (isinstance(value, (int, float)) and value > 0):
            raise ValueError(f"{name} = {value!r} is impossible: give a number above 0, or None for the profile's own.")
    if networks is not None:
        given["networks"] = tuple(choose("network", name, NETWORKS) for name in networks)
    scale = replace(scale, **given)
    chosen = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds or range(scale.seeds))
    if not chosen or any(not isinstance(seed, int) or seed < 0 for seed in chosen):
        raise ValueError(f"seeds = {seeds!r} is impossible: give a count above 0, a list of seeds, or None.")
    return Settings(profile, scale, chosen)
