"""The one training loop: a stack of M networks, from their start to the early-stopping readout.

Dense, masked, frozen and learned-mask training differ in data only. A frozen weight is a weight whose gradient is
masked. A learned supermask trains a score per weight in place of the weights, with a mask sampled in the forward pass.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from lt_utils.data import Dataset, Split
from lt_utils.networks import NETWORKS, forward
from lt_utils.randomness import generator
from lt_utils.runs import Run

TEST_MASKS = 10  # sampled masks over which a learned supermask's test accuracy is averaged (authors' code)
EVALUATION_BATCH = 500


@dataclass(frozen=True)
class Start:
    """Where networks start: weights and masks, a tensor per layer with the network axis first. Biases start at 0."""

    weights: list[Tensor]
    masks: list[Tensor]  # True: trained; False: frozen at its value in `weights`


@dataclass(frozen=True)
class Outcome:
    """What a training leaves, for one network. Accuracies are in percent."""

    metrics: dict[str, float]
    history: list[list[float]] = field(default_factory=list)  # [iteration, validation loss, validation accuracy]
    weights: list[Tensor] = field(default_factory=list)  # final values (scores, if learned), on the CPU
    biases: list[Tensor] = field(default_factory=list)


class Trainee(Protocol):
    """What the loop trains: tensors, an optimiser for them, and the weights and biases that they stand for."""

    trained: list[Tensor]
    optimiser: torch.optim.Optimizer

    def parameters(self, values: list[Tensor], draw: "Sampler") -> tuple[list[Tensor], list[Tensor]]:
        """The weights and biases that `values`, shaped as `trained`, stand for; masks are sampled anew."""

    def mask_gradients(self) -> None:
        """Zero the gradients of frozen weights."""


class Sampler:
    """Uniform random numbers for sampled masks: one stream per seed, whatever else is in the stack."""

    def __init__(self, runs: list[Run], purpose: str, device: torch.device) -> None:
        seeds = sorted({run.seed for run in runs})
        self._streams = [generator(seed, purpose, device=device) for seed in seeds]
        self._which = torch.tensor([seeds.index(run.seed) for run in runs], device=device)

    def uniform(self, like: Tensor) -> Tensor:
        """Numbers in [0, 1) of the shape of `like` (M, ...); networks of one seed get the same."""
        draws = [torch.rand(like.shape[1:], generator=g, device=like.device) for g in self._streams]
        return torch.stack(draws)[self._which]


class Weights:
    """Ordinary training: Adam on weights and biases, gradients masked."""

    def __init__(self, runs: list[Run], start: Start) -> None:
        self.layers = len(start.weights)
        biases = [w.new_zeros(w.shape[:2]) for w in start.weights]
        self.trained = [t.clone().requires_grad_() for t in [*start.weights, *biases]]
        self.masks = [None if mask.all() else mask.to(w.dtype) for mask, w in zip(start.masks, start.weights)]
        self.optimiser = torch.optim.Adam(self.trained, lr=runs[0].learning_rate, fused=True)

    def parameters(self, values: list[Tensor], draw: Sampler) -> tuple[list[Tensor], list[Tensor]]:
        """The trained weights and biases themselves."""
        return values[: self.layers], values[self.layers :]

    def mask_gradients(self) -> None:
        """Zero the gradients of frozen weights."""
        for tensor, mask in zip(self.trained, self.masks):  # biases, which come last, have no mask
            if mask is not None:
                tensor.grad.mul_(mask)


class _SampledMask(torch.autograd.Function):
    """weights * b * factor, b ~ Bernoulli(sigmoid(scores)); straight-through: b's gradient goes to sigmoid(scores)."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, weights: Tensor, uniform: Tensor, dwr: Tensor) -> Tensor:
        probability = scores.sigmoid()
        mask = uniform < probability
        scaled = weights * rescaling(mask, dwr)
        ctx.save_for_backward(scaled, probability)
        return scaled * mask

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        scaled, probability = ctx.saved_tensors
        return gradient * scaled * probability * (1 - probability), None, None, None


def rescaling(mask: Tensor, dwr: Tensor) -> Tensor:
    """Dynamic weight rescaling (section 5.2): (number of weights / number of ones) per network of a layer's masks
    (M, ...) where `dwr` (M,) is True, else 1; shaped to multiply the layer's weights."""
    ones = mask.flatten(1).sum(1).clamp(min=1)
    factor = torch.where(dwr, mask[0].numel() / ones, 1.0)
    return factor.view(-1, *[1] * (mask.ndim - 1))


class Scores:
    """Learned supermasks: SGD on a score per weight; weights and biases stay at their start."""

    def __init__(self, runs: list[Run], start: Start) -> None:
        self.weights = start.weights
        self.biases = [w.new_zeros(w.shape[:2]) for w in start.weights]
        self.dwr = torch.tensor([run.dwr for run in runs], device=start.weights[0].device)
        self.trained = [torch.zeros_like(w).requires_grad_() for w in start.weights]
        self.optimiser = torch.optim.SGD(self.trained, lr=runs[0].learning_rate, momentum=0.9, fused=True)

    def parameters(self, values: list[Tensor], draw: Sampler) -> tuple[list[Tensor], list[Tensor]]:
        """The start weights under a sampled mask, and biases of zero."""
        weights = [_SampledMask.apply(s, w, draw.uniform(s), self.dwr) for s, w in zip(values, self.weights)]
        return weights, self.biases

    def mask_gradients(self) -> None:
        """Every score is trained."""


def batches(runs: list[Run], epoch: int, images: int, device: torch.device) -> Tensor:
    """Orders (M, images) of an epoch: a fresh permutation for each (seed, round), shared by all its treatments."""
    drawn = {(r.seed, r.canonical.round): None for r in runs}
    for seed, level in drawn:
        drawn[seed, level] = torch.randperm(images, generator=generator(seed, "batches", level, epoch))
    return torch.stack([drawn[r.seed, r.canonical.round] for r in runs]).to(device)


@torch.no_grad()
def evaluate(network: str, weights: list[Tensor], biases: list[Tensor], split: Split) -> Tensor:
    """Mean cross-entropy and accuracy in percent of each network of a stack on a split: (2, M)."""
    stack = len(weights[0])
    total = weights[0].new_zeros(2, stack)
    for images, labels in zip(split.images.split(EVALUATION_BATCH), split.labels.split(EVALUATION_BATCH)):
        logits = forward(NETWORKS[network], weights, biases, images.expand(stack, *images.shape))  # (M, B, 10)
        labels = labels.expand(stack, -1)
        total[0] += F.cross_entropy(logits.transpose(1, 2), labels, reduction="none").sum(1)
        total[1] += (logits.argmax(2) == labels).sum(1)
    return total / len(split.labels) * total.new_tensor([[1.0], [100.0]])


def _copy_where(improved: Tensor, new: list[Tensor], best: list[Tensor]) -> None:
    for b, n in zip(best, new):
        torch.where(improved.view(-1, *[1] * (n.ndim - 1)), n, b, out=b)


def train(runs: list[Run], start: Start, data: Dataset, tick: Callable[[int], None] = lambda _: None) -> list[Outcome]:
    """Train a stack of runs with one `stack_key` from `start` and read them out; `tick(n)` hears of n more steps.

    The readout is the one of the paper: the test accuracy at the iteration of lowest validation loss, and at the last.
    """
    run, device = runs[0], start.weights[0].device
    trainee: Trainee = (Scores if run.kind == "learned" else Weights)(runs, start)
    draw = Sampler(runs, "masks", device)
    best = [t.detach().clone() for t in trainee.trained]
    best_loss = torch.full((len(runs),), torch.inf, device=device)
    best_at = torch.zeros(len(runs), device=device)
    history = []
    per_epoch = len(data.train.labels) // run.batch
    for iteration in range(1, run.iterations + 1):
        epoch, step = divmod(iteration - 1, per_epoch)
        if step == 0:
            order = batches(runs, epoch, len(data.train.labels), device)
        _step(run, trainee, draw, data.train, order[:, step * run.batch : (step + 1) * run.batch])
        if iteration % run.eval_every == 0 or iteration == run.iterations:
            with torch.no_grad():
                weights, biases = trainee.parameters(trainee.trained, draw)
                loss, accuracy = evaluate(run.network, weights, biases, data.validation)
                improved = loss < best_loss
                _copy_where(improved, trainee.trained, best)
            best_loss = torch.where(improved, loss, best_loss)
            best_at = torch.where(improved, iteration, best_at)
            history.append(torch.stack([loss, accuracy]))
            tick(len(runs) * (iteration - run.eval_every * (len(history) - 1)))
    return _outcomes(runs, trainee, best, best_at, best_loss, torch.stack(history), data)


def _step(run: Run, trainee: Trainee, draw: Sampler, split: Split, rows: Tensor) -> None:
    """One optimiser step of every network of the stack on its own batch, `rows` (M, B) of the training set."""
    weights, biases = trainee.parameters(trainee.trained, draw)
    logits = forward(NETWORKS[run.network], weights, biases, split.images[rows])
    loss = F.cross_entropy(logits.flatten(0, 1), split.labels[rows].flatten(), reduction="sum") / run.batch
    trainee.optimiser.zero_grad()
    loss.backward()
    trainee.mask_gradients()
    trainee.optimiser.step()


@torch.no_grad()
def _outcomes(
    runs: list[Run],
    trainee: Trainee,
    best: list[Tensor],
    best_at: Tensor,
    best_loss: Tensor,
    history: Tensor,
    data: Dataset,
) -> list[Outcome]:
    """Read out a trained stack: `history` is (evaluations, 2, M)."""
    network, learned = runs[0].network, runs[0].kind == "learned"
    samples = TEST_MASKS if learned else 1

    def accuracy(values: list[Tensor], split: Split) -> Tensor:
        draw = Sampler(runs, "evaluation masks", best_loss.device)
        reads = [evaluate(network, *trainee.parameters(values, draw), split)[1] for _ in range(samples)]
        return torch.stack(reads).mean(0)

    columns = {
        "test_accuracy": accuracy(best, data.test),
        "final_test_accuracy": accuracy(trainee.trained, data.test),
        "train_accuracy": accuracy(best, data.train_sample),
        "validation_loss": best_loss,
        "mean_validation_accuracy": history[:, 1].mean(0),
        "best_iteration": best_at,
        "diverged": ~torch.stack([t.isfinite().flatten(1).all(1) for t in trainee.trained]).all(0),
    }
    if learned:
        ones = sum(t.sigmoid().flatten(1).sum(1) for t in best)
        columns["weights_remaining"] = 100 * ones / sum(t[0].numel() for t in best)
    columns = {name: column.tolist() for name, column in columns.items()}
    history, at = history.tolist(), evaluation_iterations(runs[0])
    layers = len(trainee.trained) if learned else len(trainee.trained) // 2
    final = [t.detach().cpu() for t in trainee.trained]
    return [
        Outcome(
            {name: column[m] for name, column in columns.items()},
            [[i, *(values[m] for values in row)] for i, row in zip(at, history)],
            [t[m] for t in final[:layers]],
            [t[m] for t in final[layers:]],
        )
        for m in range(len(runs))
    ]


def evaluation_iterations(run: Run) -> list[int]:
    """The iterations at which validation is evaluated: every `eval_every`, and the last."""
    regular = list(range(run.eval_every, run.iterations + 1, run.eval_every))
    return regular if regular and regular[-1] == run.iterations else [*regular, run.iterations]
