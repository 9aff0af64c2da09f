"""The recorded step. A CUDA graph is stood in for by a recording of a step's tensor operations, done over again on the
very same tensors: what a step does through Python is lost in it, as in a graph, and to read a number is an error."""

from dataclasses import fields, replace
from functools import partial

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lt_utils import data, training
from lt_utils.networks import NETWORKS, initial_weights
from lt_utils.recording import ORDINARY, Recorded
from lt_utils.runs import Run
from lt_utils.trainees import DTYPES, Start
from lt_utils.training import train


class Tape(TorchDispatchMode):
    """Keeps the operations that are done under it, with the tensors that they read and made."""

    def __init__(self):
        super().__init__()
        self.done = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("operation not permitted when stream is capturing\nand so on")
        out = func(*args, **(kwargs or {}))
        self.done.append((func, args, kwargs or {}, out))
        return out

    def again(self):
        with torch.no_grad():
            for func, args, kwargs, out in self.done:
                for kept, new in zip(tree_leaves(out), tree_leaves(func(*args, **kwargs))):
                    if isinstance(kept, torch.Tensor) and kept.data_ptr() != new.data_ptr():
                        kept.copy_(new)


def taped(step, rows, streams, trainee):
    """What `cuda_graph` does, with a tape; like a graph, it records without doing."""
    stood, rows, tape = {n: t.detach().clone() for n, t in trainee.state().items()}, rows.clone(), Tape()
    with tape:
        step(rows)
    trainee.restore(stood, 0)

    def replay(others):
        rows.copy_(others)
        tape.again()

    return replay


CASES = [
    ("train", "fc", 1.0, 0.0, "fp32"),
    ("train", "fc", 0.5, 0.5, "fp32"),
    ("train", "fc", 0.1, 0.0, "bf16"),
    ("learned", "fc", 1.0, 0.0, "fp32"),
    ("train", "conv2", 0.1, 0.0, "fp32"),
    ("learned", "conv2", 1.0, 0.0, "fp32"),
]


def case(kind, network, kept, dropout, precision, iterations=7):
    rate = NETWORKS[network].mask_rates[0] if kind == "learned" else NETWORKS[network].learning_rate
    same = {"network": network, "kind": kind, "dropout": dropout, "precision": precision, "learning_rate": rate}
    runs = [
        Run(seed=s, dwr=kind == "learned" and bool(s), iterations=iterations, eval_every=4, test_images=100, **same)
        for s in (0, 1)
    ]
    if network != "fc":
        runs = [run for run in runs if not run.seed]
    weights = [torch.stack(layer) for layer in zip(*(initial_weights(network, run.seed) for run in runs))]
    source = torch.Generator().manual_seed(0)
    return runs, Start(weights, [torch.rand(w.shape, generator=source) < kept for w in weights])


def trained(monkeypatch, runs, start, record=None):
    """Train with `record(step, rows, streams, trainee)` in the place of a CUDA graph; without, as on a CPU."""
    if record:
        monkeypatch.setattr(
            training,
            "step_of",
            lambda run, trainee, split, done=0: Recorded(
                partial(training.step, run, trainee, split), trainee, done, partial(record, trainee=trainee)
            ),
        )
    dataset = data.load(NETWORKS[runs[0].network].dataset, "cpu", DTYPES[runs[0].precision])
    return train(runs, start, data.Dataset(*(getattr(dataset, f.name).first(300) for f in fields(dataset))))


def assert_same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert a.metrics == b.metrics
        assert a.history == b.history
        assert all(torch.equal(x, y) for x, y in zip(a.weights + a.biases + a.masks, b.weights + b.biases + b.masks))


def counted(record):
    """The same recording, and the rows of its replays."""
    replays = []

    def noted(*given, trainee):
        replay = record(*given, trainee=trainee)
        return lambda rows: (replay(rows), replays.append(rows))

    return noted, replays


@pytest.mark.parametrize("which", CASES)
@pytest.mark.filterwarnings("error")
def test_training_with_a_recorded_step_gives_the_same_bits(monkeypatch, which):
    runs, start = case(*which)
    expected = trained(monkeypatch, runs, start)
    record, replays = counted(taped)
    assert_same(trained(monkeypatch, runs, start, record), expected)
    assert len(replays) == runs[0].iterations


def stale(step, rows, streams, trainee):
    """Always the batch that was recorded."""
    replay, same = taped(step, rows, streams, trainee), rows.clone()
    return lambda others: replay(same)


def lazy(step, rows, streams, trainee):
    """Does nothing."""
    return lambda others: None


def frozen_streams(step, rows, streams, trainee):
    """Draws the numbers that were drawn when it was recorded, as a graph does of whose generators nobody told it."""
    replay, states = taped(step, rows, streams, trainee), [stream.get_state() for stream in streams]

    def again(others):
        for stream, state in zip(streams, states):
            stream.set_state(state)
        replay(others)

    return again


def detached(step, rows, streams, trainee):
    """Works on tensors that the trainee has left since."""
    replay = taped(step, rows, streams, trainee)
    for values, state in trainee.optimiser.state.items():
        trainee.optimiser.state[values] = {name: tensor.clone() for name, tensor in state.items()}
    return replay


def stuck(step, rows, streams, trainee):
    """Counts no further than when it was recorded, as a graph does of what Python counts."""
    replay, counts = taped(step, rows, streams, trainee), [s["step"] for s in trainee.optimiser.state.values()]
    stood = [count.clone() for count in counts]

    def again(others):
        for count, then in zip(counts, stood):
            count.copy_(then)
        replay(others)

    return again


def impossible(step, rows, streams, trainee):
    """The step reads a number, in the middle."""
    with Tape():
        step(rows)
        rows.sum().item()


@pytest.mark.parametrize(
    ("record", "kind", "why"),
    [
        (stale, "train", "does not train as the step"),
        (lazy, "train", "does not train as the step"),
        (lazy, "learned", "does not train as the step"),
        (frozen_streams, "learned", "does not train as the step"),
        (detached, "train", "does not train as the step"),
        (stuck, "train", "does not train as the step"),
        (impossible, "train", "operation not permitted when stream is capturing"),
        (impossible, "learned", "operation not permitted when stream is capturing"),
    ],
)
def test_a_recording_that_is_not_the_step_is_not_used(monkeypatch, record, kind, why):
    runs, start = case(kind, "fc", 0.5, 0.0, "fp32")
    expected = trained(monkeypatch, runs, start)
    with pytest.warns(UserWarning, match=f"no CUDA graph of the training step .*{why}.*without, slower"):
        ours = trained(monkeypatch, runs, start, record)
    assert_same(ours, expected)


def rounding(step, rows, streams, trainee):
    """Rounds otherwise than the step itself: by half a percent of what it does."""
    replay, source = taped(step, rows, streams, trainee), torch.Generator().manual_seed(0)

    def again(others):
        before = [t.detach().clone() for t in trainee.trained]
        replay(others)
        with torch.no_grad():
            for now, was in zip(trainee.trained, before):
                now.addcmul_(now - was, torch.randn(now.shape, generator=source), value=0.005)

    return again


@pytest.mark.filterwarnings("error")
def test_a_recording_that_rounds_otherwise_is_used_even_where_steps_amplify_it(monkeypatch):
    runs, start = case("learned", "conv6", 1.0, 0.0, "bf16", iterations=ORDINARY + 1)
    runs = [replace(run, dwr=True, learning_rate=NETWORKS["conv6"].mask_rates[True]) for run in runs]
    record, replays = counted(rounding)
    trained(monkeypatch, runs, start, record)
    assert len(replays) == runs[0].iterations


def test_want_of_memory_while_recording_is_not_hushed_up(monkeypatch):
    def full(*given, trainee):
        raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        trained(monkeypatch, *case("train", "fc", 0.5, 0.0, "fp32"), full)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("which", CASES)
@pytest.mark.filterwarnings("error")
def test_a_cuda_graph_trains_as_the_step_itself(monkeypatch, which):
    runs, start = case(*which, iterations=40)
    start = Start([w.cuda() for w in start.weights], [m.cuda() for m in start.masks])
    images = data.load(NETWORKS[runs[0].network].dataset, "cuda", DTYPES[runs[0].precision])
    recorded = train(runs, start, images)
    monkeypatch.setattr(training, "step_of", lambda run, *rest: partial(training.step, run, *rest[:2]))
    for a, b in zip(recorded, train(runs, start, images)):
        assert a.metrics["validation_loss"] == pytest.approx(b.metrics["validation_loss"], rel=0.01)
        assert a.metrics["test_accuracy"] == pytest.approx(b.metrics["test_accuracy"], abs=1)
