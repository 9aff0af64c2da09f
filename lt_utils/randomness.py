"""Random numbers by name: the same (seed, purpose, ...) gives the same stream, on every machine and in any order."""

import hashlib

import torch


def generator(*key: object, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator of its own for `key`, for example `generator(seed, "batches", round, epoch)`; no global state."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "little") >> 1)
