"""Random numbers by name: the same (seed, purpose, ...) gives the same stream, on every machine and in any order."""

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor


def generator(*key: object, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator of its own for `key`, for example `generator(seed, "batches", round, epoch)`; no global state."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "little") >> 1)


class Sampler:
    """Uniform random numbers for networks with these seeds: one stream per seed, whatever else is in the stack."""

    def __init__(self, seeds: list[int], purpose: str, device: torch.device) -> None:
        different = sorted(set(seeds))
        self.streams = [generator(seed, purpose, device=device) for seed in different]
        self._which = torch.tensor([different.index(seed) for seed in seeds], device=device)

    def uniform(self, like: Tensor) -> Tensor:
        """Numbers in [0, 1) of the shape of `like` (M, ...); networks of one seed get the same."""
        return torch.cat([numbers for _, numbers, _ in self.parts(like)])

    def parts(self, *tensors: Tensor) -> Iterator[tuple]:
        """The same in parts, each with the networks that it is for and their part of the tensors (M, ...): one by one
        on a CPU, so that what is computed of a network stays in the caches, and its bits do not depend on the others;
        at once on a GPU."""
        like = tensors[0]
        draws = [torch.rand(like.shape[1:], generator=g, device=like.device) for g in self.streams]
        if like.device.type != "cpu":
            yield slice(None), torch.stack(draws)[self._which], *tensors
            return
        each = zip(self._which.tolist(), *(tensor.split(1) for tensor in tensors))
        for m, (seed, *parts) in enumerate(each):
            yield slice(m, m + 1), draws[seed].unsqueeze(0), *parts

    def state(self) -> Tensor:
        """The streams' states, one per network."""
        return torch.stack([stream.get_state() for stream in self.streams])[self._which.cpu()]

    def restore(self, state: Tensor) -> None:
        """Go on from the streams' states."""
        for i, stream in enumerate(self.streams):
            stream.set_state(state[int((self._which == i).nonzero()[0])].cpu().clone())


class Dropout:
    """Sets outputs to zero at random, at a rate, and scales the others up (LTH, section 4)."""

    def __init__(self, rate: float, seeds: list[int], device: torch.device) -> None:
        self.rate, self.draw = rate, Sampler(seeds, "dropout", device)

    def __call__(self, x: Tensor) -> Tensor:
        """Outputs (M, B, outputs) of a layer, some of them dropped; networks of one seed drop the same."""
        return x * (self.draw.uniform(x) >= self.rate) / (1 - self.rate)
