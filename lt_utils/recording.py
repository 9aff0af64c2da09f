"""A step recorded once as a CUDA graph and replayed, so that a GPU does not wait for Python to launch its kernels."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import Tensor

from lt_utils.networks import forked
from lt_utils.trainees import Trainee

Step = Callable[[Tensor], None]  # a step of a stack on its batches (M, B), rows of the training set
ORDINARY = 3  # steps before a recording, which is then checked with the same ones
TOLERANCE = 0.02  # of how far a step moved a network; a recording that skips or repeats anything is off by more


def cuda_graph(step: Step, rows: Tensor, streams: list[torch.Generator]) -> Step:
    """Record `step` without doing it; what is returned replays it on other rows of the same shape."""
    rows, device = rows.clone(), rows.device
    with torch.cuda.device(device):  # which need not be the process's first
        graph = torch.cuda.CUDAGraph()
        for stream in streams:
            graph.register_generator_state(stream)
        with torch.cuda.graph(graph, stream=torch.cuda.Stream(device)):
            step(rows)

    def replay(others: Tensor) -> None:
        rows.copy_(others)
        with torch.cuda.device(device):
            graph.replay()

    return replay


class Recorded:
    """A step that is recorded after a few ordinary ones and replayed from then on.

    A graph repeats kernels on fixed addresses; anything else that a step does would silently be left out. Therefore the
    recording first does the ordinary steps over again, each from where it began. Only if each ends where the step ended
    is it used; otherwise training goes on with ordinary steps, and a warning says so. (Each by itself, because steps
    amplify: rounding alone, 0.5 % in one step, has taken learned masks of Conv6 25 % apart in three.)
    """

    def __init__(self, step: Step, trainee: Trainee, done: int = 0, record: Callable[..., Step] = cuda_graph) -> None:
        self.step, self.trainee, self.done, self.record = step, trainee, done, record
        self.ordinary: list[Tensor] = []  # the rows of these steps
        self.stood = [_copy(trainee.state())]  # before the first of them, and after each
        device = trainee.trained[0].device
        self.aside = torch.cuda.Stream(device) if device.type == "cuda" else None  # a recording asks for one

    def __call__(self, rows: Tensor) -> None:
        """Do the step on `rows` (M, B)."""
        if len(self.ordinary) == ORDINARY:
            self.step(rows)
            return
        self.ordinary.append(rows)
        with _on(self.aside):
            self.step(rows)
        self.stood.append(_copy(self.trainee.state()))
        if len(self.ordinary) == ORDINARY:
            self.step = self._recorded()
            self.stood.clear()

    def _recorded(self) -> Step:
        """The recording, or the step itself; either way training stands where the ordinary steps took it."""
        try:
            replay = self.record(self.step, self.ordinary[0], self.trainee.streams())
            off = self._off(replay)
            if off <= TOLERANCE:
                return replay
            why = f"its replay does not train as the step itself does: it is off by {100 * off:.1f} %"
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            why = str(error).splitlines()[0]
        finally:
            self.trainee.restore(self.stood[-1], self.done + ORDINARY)
        warnings.warn(f"no CUDA graph of the training step ({why}): training goes on without, slower.", stacklevel=2)
        return self.step

    def _off(self, replay: Step) -> float:
        """How far a replay of any of these steps ends from where the step itself did, of how far that went."""
        apart = []
        for i, (before, after) in enumerate(pairwise(self.stood)):
            self.trainee.restore(before, self.done + i)
            replay(self.ordinary[i])
            apart.append(_difference(self.trainee.state(), after, before))
        return max(apart)


def _copy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in state.items()}


@contextmanager
def _on(stream: torch.cuda.Stream | None) -> Iterator[None]:
    """Compute on a stream, between what was asked for before and what is asked for after."""
    if not stream:
        yield
        return
    with forked([stream]), torch.cuda.stream(stream):
        yield


def _difference(ours: dict[str, Tensor], theirs: dict[str, Tensor], before: dict[str, Tensor]) -> float:
    """How far apart two states are, of how far they went from `before`: the most in any tensor of any network. Random
    streams are the same to the bit, or infinitely far apart."""
    most = 0.0
    for name, there in theirs.items():
        if not there.is_floating_point():
            most = most if torch.equal(ours[name], there) else torch.inf
            continue
        here, there, start = (t.nan_to_num().flatten(1) for t in (ours[name], there, before[name]))
        apart, went = (here - there).norm(dim=1), (there - start).norm(dim=1)
        most = max(most, torch.where(apart > 0, apart / went, 0.0).max().item())
    return most
