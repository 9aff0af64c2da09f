"""The one training loop: a stack of M networks, from their start to the early-stopping readout.

Dense, masked, frozen and learned-mask training differ in data only. A frozen weight is a weight whose gradient is
masked. A learned supermask trains a score per weight in place of the weights, with a mask sampled in the forward pass.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from lt_utils.data import Dataset, Split
from lt_utils.networks import LANES, NETWORKS, Network, forward
from lt_utils.randomness import generator
from lt_utils.recording import Recorded
from lt_utils.runs import Run
from lt_utils.trainees import Start, Trainee, trainee_of

TEST_MASKS = 10  # sampled masks over which a learned supermask's test accuracy is averaged (authors' code)
EVALUATION_BATCH = 500  # images; on a GPU at least
EVALUATION_SHARE = 1 / 16  # of a GPU's memory, for the activations of an evaluation's batch
CONV_BATCH_CPU = 100  # images; larger activations leave the caches


@dataclass
class Outcome:
    """What a training leaves, for one network. Accuracies are in percent."""

    metrics: dict[str, float]
    history: list[list[float]] = field(default_factory=list)  # [iteration, validation loss, validation accuracy]
    weights: list[Tensor] = field(default_factory=list)  # final values (scores, if learned), on the CPU
    biases: list[Tensor] = field(default_factory=list)
    masks: list[Tensor] = field(default_factory=list)  # of a learned supermask: one sample of it, on the CPU


def batches(runs: list[Run], epoch: int, images: int, device: torch.device) -> Tensor:
    """Orders (M, images) of an epoch: a fresh permutation for each (seed, round), shared by all its treatments."""
    whose = [(r.seed, r.canonical.round) for r in runs]
    different = list(dict.fromkeys(whose))
    drawn = [torch.randperm(images, generator=generator(seed, "batches", level, epoch)) for seed, level in different]
    return torch.stack(drawn).to(device)[[different.index(one) for one in whose]]


def images_at_once(network: Network, stack: int, size: int, memory: float) -> int:
    """Images of a batch whose evaluation takes so many bytes on a GPU, where launching the kernels of a small batch
    takes longer than computing it. Counted are, of convolutions, the input and output of the largest layer for every
    network that is computed side by side; of dense layers, for the whole stack, their inputs before and after the ReLU.
    `size` is that of a number, in bytes."""
    outputs = [layer.outputs * pixels for layer, pixels in zip(network.layers, network.pixels) if layer.role == "conv"]
    dense = sum(layer.inputs for layer in network.layers if layer.role != "conv")
    per_image = size * (2 * min(stack, LANES) * max(outputs, default=0) + 2 * stack * dense)
    return max(EVALUATION_BATCH, int(memory / per_image))


def evaluation_batch(network: Network, stack: int, split: Split) -> int:
    """Images that are evaluated at once."""
    if not split.labels.is_cuda:
        return CONV_BATCH_CPU if split.images.ndim == 4 else EVALUATION_BATCH
    memory = EVALUATION_SHARE * torch.cuda.get_device_properties(split.labels.device).total_memory
    return images_at_once(network, stack, split.images.element_size(), memory)


@torch.no_grad()
def evaluate(network: str, weights: list[Tensor], biases: list[Tensor], split: Split) -> Tensor:
    """Mean cross-entropy and accuracy in percent of each network of a stack on a split: (2, M)."""
    stack, device = len(weights[0]), split.labels.device
    batch = evaluation_batch(NETWORKS[network], stack, split)
    total = torch.zeros(2, stack, device=device)
    for images, labels in zip(split.images.split(batch), split.labels.split(batch)):
        logits = forward(NETWORKS[network], weights, biases, images.expand(stack, *images.shape))  # (M, B, 10)
        labels = labels.expand(stack, -1)
        total[0] += F.cross_entropy(logits.transpose(1, 2), labels, reduction="none").sum(1)
        total[1] += (logits.argmax(2) == labels).sum(1)
    return total / len(split.labels) * total.new_tensor([[1.0], [100.0]])


def _copy_where(improved: Tensor, new: list[Tensor], best: list[Tensor]) -> None:
    for b, n in zip(best, new):
        torch.where(improved.view(-1, *[1] * (n.ndim - 1)), n, b, out=b)


class Checkpoints(Protocol):
    """Where a training keeps where it stands, and goes on from."""

    def load(self) -> tuple[int, dict[str, Tensor]]:
        """Iteration and tensors of the last checkpoint, network axis first; iteration 0 if there is none."""

    def due(self) -> bool:
        """Whether it is time for one."""

    def save(self, iteration: int, tensors: dict[str, Tensor]) -> None:
        """Keep one."""


def train(
    runs: list[Run],
    start: Start,
    data: Dataset,
    tick: Callable[[int], None] = lambda _: None,
    checkpoints: Checkpoints | None = None,
) -> list[Outcome]:
    """Train a stack of runs with one `stack_key` from `start` and read them out; `tick(n)` hears of n more steps.

    The readout is the one of the paper: the test accuracy at the iteration of lowest validation loss, and at the last.
    """
    run, device, done = runs[0], start.weights[0].device, 0
    trainee = trainee_of(runs, start)
    readout = Readout(runs, trainee, data)
    if checkpoints:
        done, saved = checkpoints.load()
        if done:
            trainee.restore(saved, done)
            readout.restore(saved)
    told = done
    per_epoch, advance = len(data.train.labels) // run.batch, step_of(run, trainee, data.train, done)
    for iteration in range(done + 1, run.iterations + 1):
        epoch, nth = divmod(iteration - 1, per_epoch)
        if nth == 0 or iteration == done + 1:
            order = batches(runs, epoch, len(data.train.labels), device)
        advance(order[:, nth * run.batch : (nth + 1) * run.batch])
        if iteration % run.eval_every == 0 or iteration == run.iterations:
            readout.validate(iteration)
            tick(len(runs) * (iteration - told))
            told = iteration
        if checkpoints and iteration < run.iterations and checkpoints.due():
            checkpoints.save(iteration, trainee.state() | readout.state())
    return readout.outcomes()


def step(run: Run, trainee: Trainee, split: Split, rows: Tensor) -> None:
    """One optimiser step of every network of the stack on its own batch, `rows` (M, B) of the training set."""
    images = split.images.index_select(0, rows.flatten()).unflatten(0, rows.shape)
    logits = forward(NETWORKS[run.network], *trainee.leaves(), images, trainee.dropout)
    loss = F.cross_entropy(logits.flatten(0, 1), split.labels[rows].flatten(), reduction="sum") / run.batch
    loss.backward()
    trainee.update()


def step_of(run: Run, trainee: Trainee, split: Split, done: int = 0) -> Callable[[Tensor], None]:
    """`step` of a trainee after so many steps, to be called with `rows`; on a GPU it is recorded, and then replayed."""
    ordinary = partial(step, run, trainee, split)
    return Recorded(ordinary, trainee, done) if split.labels.is_cuda else ordinary


class Readout:
    """What is read off a stack while it trains: validation, and the best values so far by validation loss."""

    def __init__(self, runs: list[Run], trainee: Trainee, data: Dataset) -> None:
        self.runs, self.trainee, self.data = runs, trainee, data
        self.best = [t.detach().clone() for t in trainee.trained]
        self.best_loss = torch.full((len(runs),), torch.inf, device=self.best[0].device)
        self.best_at = torch.zeros_like(self.best_loss)
        self.history: list[Tensor] = []  # (2, M) each: validation loss and accuracy

    @torch.no_grad()
    def validate(self, iteration: int) -> None:
        """Evaluate validation, and keep the values of the networks that have never been better."""
        trained = self.trainee.trained
        loss, accuracy = evaluate(self.runs[0].network, *self.trainee.parameters(trained), self.data.validation)
        improved = loss < self.best_loss
        _copy_where(improved, trained, self.best)
        self.best_loss = torch.where(improved, loss, self.best_loss)
        self.best_at = torch.where(improved, iteration, self.best_at)
        self.history.append(torch.stack([loss, accuracy]))

    def state(self) -> dict[str, Tensor]:
        """All that reading goes on from, network axis first."""
        best = {f"best.{i}": t for i, t in enumerate(self.best)}
        history = (
            torch.stack(self.history, 2).transpose(0, 1)
            if self.history
            else self.best_at.new_zeros(len(self.runs), 2, 0)
        )
        return best | {"best_loss": self.best_loss, "best_at": self.best_at, "history": history}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from a `state`."""
        self.best = [state[f"best.{i}"].clone() for i in range(len(self.best))]
        self.best_loss, self.best_at = state["best_loss"], state["best_at"]
        self.history = list(state["history"].transpose(0, 1).unbind(2))

    def _accuracy(self, values: list[Tensor], split: Split, samples: int = 1) -> Tensor:
        network, trainee = self.runs[0].network, self.trainee
        trainee.draw_for("test masks")
        reads = [evaluate(network, *trainee.parameters(values), split)[1] for _ in range(samples)]
        return sum(reads) / samples

    @torch.no_grad()
    def outcomes(self) -> list[Outcome]:
        """Read out the trained stack."""
        run, trained, history = self.runs[0], self.trainee.trained, torch.stack(self.history)  # (evaluations, 2, M)
        learned, test = run.kind == "learned", self.data.test.first(run.test_images)
        samples = TEST_MASKS if learned else 1
        at_best = self._accuracy(self.best, test, samples)
        last_is_best = bool((self.best_at == run.iterations).all())
        columns = {
            "test_accuracy": at_best,
            "final_test_accuracy": at_best if last_is_best else self._accuracy(trained, test, samples),
            "train_accuracy": self._accuracy(self.best, self.data.train_sample.first(run.test_images)),
            "validation_loss": self.best_loss,
            "mean_validation_accuracy": sum(history[:, 1]) / len(history),
            "best_iteration": self.best_at,
            "diverged": ~torch.stack([t.isfinite().flatten(1).all(1) for t in trained]).all(0),
        }
        masks = []
        if learned:
            masks, columns["mask_accuracy"] = self._one_mask(test)
            ones = sum(t.sigmoid().flatten(1).sum(1) for t in self.best)
            columns["weights_remaining"] = 100 * ones / sum(t[0].numel() for t in self.best)
        values = {name: column.tolist() for name, column in columns.items()}
        curves, at = history.tolist(), evaluation_iterations(run)
        final = [t.detach().cpu() for t in trained]
        layers = len(masks) or len(final) // 2
        return [
            Outcome(
                {name: column[m] for name, column in values.items()},
                [[i, *(two[m] for two in row)] for i, row in zip(at, curves)],
                [t[m] for t in final[:layers]],
                [t[m] for t in final[layers:]],
                [t[m] for t in masks],
            )
            for m in range(len(self.runs))
        ]

    def _one_mask(self, test: Split) -> tuple[list[Tensor], Tensor]:
        """One mask sampled from the best scores, to be kept, and its test accuracy."""
        self.trainee.draw_for("the mask kept")
        weights, biases = self.trainee.parameters(self.best)
        return [w.cpu() != 0 for w in weights], evaluate(self.runs[0].network, weights, biases, test)[1]


def evaluation_iterations(run: Run) -> list[int]:
    """The iterations at which validation is evaluated: every `eval_every`, and the last."""
    regular = list(range(run.eval_every, run.iterations + 1, run.eval_every))
    return regular if regular and regular[-1] == run.iterations else [*regular, run.iterations]
