"""The one training loop: a stack of M networks, from their start to the early-stopping readout.

Dense, masked, frozen and learned-mask training differ in data only. A frozen weight is a weight whose gradient is
masked. A learned supermask trains a score per weight in place of the weights, with a mask sampled in the forward pass.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from lt_utils.data import Dataset, Split
from lt_utils.networks import NETWORKS, forward
from lt_utils.randomness import generator
from lt_utils.runs import Run
from lt_utils.trainees import Scores, Start, Trainee, Weights

TEST_MASKS = 10  # sampled masks over which a learned supermask's test accuracy is averaged (authors' code)
EVALUATION_BATCH = 500


@dataclass(frozen=True)
class Outcome:
    """What a training leaves, for one network. Accuracies are in percent."""

    metrics: dict[str, float]
    history: list[list[float]] = field(default_factory=list)  # [iteration, validation loss, validation accuracy]
    weights: list[Tensor] = field(default_factory=list)  # final values (scores, if learned), on the CPU
    biases: list[Tensor] = field(default_factory=list)


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
    total = torch.zeros(2, stack, device=split.labels.device)
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
    best = [t.detach().clone() for t in trainee.trained]
    best_loss = torch.full((len(runs),), torch.inf, device=device)
    best_at = torch.zeros(len(runs), device=device)
    history = []
    per_epoch = len(data.train.labels) // run.batch
    for iteration in range(1, run.iterations + 1):
        epoch, nth = divmod(iteration - 1, per_epoch)
        if nth == 0:
            order = batches(runs, epoch, len(data.train.labels), device)
        step(run, trainee, data.train, order[:, nth * run.batch : (nth + 1) * run.batch])
        if iteration % run.eval_every == 0 or iteration == run.iterations:
            with torch.no_grad():
                weights, biases = trainee.parameters(trainee.trained)
                loss, accuracy = evaluate(run.network, weights, biases, data.validation)
                improved = loss < best_loss
                _copy_where(improved, trainee.trained, best)
            best_loss = torch.where(improved, loss, best_loss)
            best_at = torch.where(improved, iteration, best_at)
            history.append(torch.stack([loss, accuracy]))
            tick(len(runs) * (iteration - run.eval_every * (len(history) - 1)))
    return _outcomes(runs, trainee, best, best_at, best_loss, torch.stack(history), data)


def step(run: Run, trainee: Trainee, split: Split, rows: Tensor) -> None:
    """One optimiser step of every network of the stack on its own batch, `rows` (M, B) of the training set."""
    images = split.images.index_select(0, rows.flatten()).unflatten(0, rows.shape)
    logits = forward(NETWORKS[run.network], *trainee.leaves(), images)
    loss = F.cross_entropy(logits.flatten(0, 1), split.labels[rows].flatten(), reduction="sum") / run.batch
    loss.backward()
    trainee.update()


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
        reads = [evaluate(network, *trainee.parameters(values), split)[1] for _ in range(samples)]
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
