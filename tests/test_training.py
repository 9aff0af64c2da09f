"""The training loop: against plain PyTorch, independent of its stack, repeatable; frozen weights stay frozen."""

import copy
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lt_utils import data, lottery, networks, randomness, starts, trainees
from lt_utils.actions import MASK0_ACTIONS, MASK1_ACTIONS
from lt_utils.criteria import CRITERIA
from lt_utils.networks import NETWORKS, forward, initial_weights
from lt_utils.randomness import Dropout
from lt_utils.runs import Run
from lt_utils.starts import starting_point
from lt_utils.trainees import DTYPES, SPARSE, Scores, Start, rescaling, trainee_of
from lt_utils.training import EVALUATION_BATCH, Readout, batches, evaluate, images_at_once, step, train

SHORT = {"iterations": 30, "learning_rate": 1.2e-3, "eval_every": 10}
CPU = torch.device("cpu")
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


def half_masked(run, seed=0, kept=0.5):
    """A start with some of the weights frozen, part of them at values that are not zero."""
    weights = initial_weights(run.network, run.seed)
    source = torch.Generator().manual_seed(seed)
    masks = [torch.rand(w.shape, generator=source) < kept for w in weights]
    return [torch.where(m, w, w.clamp(min=0)) for w, m in zip(weights, masks)], masks


def stacked(points):
    return Start(*([torch.stack(layer) for layer in zip(*part)] for part in zip(*points)))


def there(start):
    return Start([w.cuda() for w in start.weights], [m.cuda() for m in start.masks])


def images_of(run, device="cpu"):
    return data.load(NETWORKS[run.network].dataset, device, DTYPES[run.precision])


def trained(runs, points, dataset="mnist"):
    return train(runs, stacked(points), data.load(dataset))


def plain_module(weights):
    """The FC network as anybody would write it."""
    module = nn.Sequential(nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10))
    for layer, w in zip(module[::2], weights):
        layer.weight.data = w.clone()
        layer.bias.data.zero_()
    return module


def train_plainly(run, weights, masks):
    """An ordinary loop with `torch.optim.Adam`, and the readout of the paper written out."""
    module, dataset = plain_module(weights), data.load("mnist")
    optimiser = torch.optim.Adam(module.parameters(), lr=run.learning_rate)
    order = batches([run], 0, len(dataset.train.labels), CPU)[0]
    best = (float("inf"), 0, None)
    for i in range(1, run.iterations + 1):
        rows = order[(i - 1) * run.batch : i * run.batch]
        optimiser.zero_grad()
        F.cross_entropy(module(dataset.train.images[rows]), dataset.train.labels[rows]).backward()
        for layer, mask in zip(module[::2], masks):
            layer.weight.grad *= mask
        optimiser.step()
        if i % run.eval_every == 0:
            with torch.no_grad():
                loss = F.cross_entropy(module(dataset.validation.images), dataset.validation.labels).item()
            best = min(best, (loss, i, copy.deepcopy(module)), key=lambda b: b[0])
    with torch.no_grad():
        hits = (best[2](dataset.test.images).argmax(1) == dataset.test.labels).float().mean().item()
    return module, best[0], best[1], 100 * hits


@pytest.mark.parametrize("kept", [1.0, 0.5, 0.1])  # all trained; gradients masked; Adam given the trained ones alone
def test_a_stacked_run_equals_the_same_run_trained_alone_with_plain_pytorch(kept):
    runs = [Run(seed=s, round=r, **SHORT) for s, r in ((0, 0), (1, 0), (1, 2))]
    points = [half_masked(run, i, kept) for i, run in enumerate(runs)]
    for run, (weights, masks), ours in zip(runs, points, trained(runs, points)):
        module, loss, at, accuracy = train_plainly(run, weights, masks)
        for layer, w, b in zip(module[::2], ours.weights, ours.biases):
            torch.testing.assert_close(w, layer.weight.data, atol=2e-4, rtol=1e-3)
            torch.testing.assert_close(b, layer.bias.data, atol=2e-4, rtol=1e-3)
        assert ours.metrics["validation_loss"] == pytest.approx(loss, rel=1e-4)
        assert ours.metrics["best_iteration"] == at
        assert ours.metrics["test_accuracy"] == pytest.approx(accuracy, abs=0.05)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kept", [0.5, 0.1])
def test_frozen_weights_are_bit_identical_after_training_and_kept_ones_move(kept, precision):
    run = Run(precision=precision, **SHORT)
    weights, masks = half_masked(run, kept=kept)
    (ours,) = trained([run], [(weights, masks)])
    for w, m, after in zip(weights, masks, ours.weights):
        assert torch.equal(after[~m], w[~m])
    assert (ours.weights[1] != weights[1])[masks[1]].float().mean() > 0.7


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("kind", "dropout"), [("train", 0.0), ("train", 0.5), ("learned", 0.0)])
def test_a_run_does_not_depend_on_its_stack_not_even_in_its_last_bit(kind, dropout, precision):
    """Whatever the others' densities: alone, beside others, and with or without Adam's short cut for few weights."""
    same = {"kind": kind, "dropout": dropout, "precision": precision, "test_images": 1000, **SHORT}
    run, *others = [Run(seed=s, **same) for s in range(4)]
    point, sparse, dense = half_masked(run, kept=0.15), half_masked(run, kept=0.01), half_masked(run, kept=1.0)
    (alone,) = trained([run], [point])
    for neighbours in ([sparse], [dense], [sparse, dense, dense]):
        runs = [*others[: len(neighbours)], run]
        beside = trained(runs, [*neighbours, point])[-1]
        assert beside.metrics == alone.metrics
        assert beside.history == alone.history
        assert all(torch.equal(a, b) for a, b in zip(alone.weights + alone.biases, beside.weights + beside.biases))


@pytest.mark.parametrize("kind", ["train", "learned"])
def test_the_same_seed_twice_gives_the_same_bits(kind):
    run = Run(kind=kind, **SHORT)
    first, second = (trained([run], [starting_point(run)])[0] for _ in range(2))
    assert first.metrics == second.metrics
    assert all(torch.equal(a, b) for a, b in zip(first.weights, second.weights))


def test_dropout_drops_its_share_scales_the_rest_and_leaves_evaluation_alone():
    dropped = Dropout(0.4, [0, 1, 0], CPU)(torch.ones(3, 200, 300))
    assert dropped.unique().tolist() == pytest.approx([0, 1 / 0.6])
    assert (dropped == 0).float().mean().item() == pytest.approx(0.4, abs=0.01)
    assert torch.equal(dropped[0], dropped[2])  # one seed, one stream
    assert not torch.equal(dropped[0], dropped[1])
    run = Run(dropout=0.5, **SHORT)
    (ours,) = trained([run], [starting_point(run)])
    (without,) = trained([replace(run, dropout=0.0)], [starting_point(run)])
    assert not torch.equal(ours.weights[0], without.weights[0])
    values = [[t.unsqueeze(0) for t in part] for part in (ours.weights, ours.biases)]
    loss, accuracy = evaluate("fc", *values, data.load("mnist").validation)
    assert ours.history[-1] == pytest.approx([30, loss.item(), accuracy.item()])


def test_bf16_matrix_products_learn_as_well_as_fp32():
    start = {"iterations": 300, "learning_rate": 1.2e-3, "eval_every": 100}
    runs = [[Run(seed=s, precision=p, **start) for s in range(4)] for p in ("fp32", "bf16")]
    fp32, bf16 = (
        [ours.metrics["test_accuracy"] for ours in trained(some, [starting_point(run) for run in some])]
        for some in runs
    )
    assert sum(fp32) / 4 == pytest.approx(sum(bf16) / 4, abs=0.5)


def test_training_learns():
    run = Run(iterations=300, learning_rate=1.2e-3, eval_every=100)
    (ours,) = trained([run], [starting_point(run)])
    assert ours.metrics["test_accuracy"] > 90
    assert [at for at, *_ in ours.history] == [100, 200, 300]


def test_early_stopping_reads_the_test_set_at_the_lowest_validation_loss():
    run = Run(iterations=60, learning_rate=0.08, eval_every=5)  # so fast that validation loss goes up and down
    (ours,) = trained([run], [starting_point(run)])
    losses = {at: loss for at, loss, _ in ours.history}
    best = min(losses, key=losses.get)
    assert ours.metrics["best_iteration"] == best < 60
    (stopped,) = trained([Run(iterations=best, learning_rate=0.08, eval_every=5)], [starting_point(run)])
    assert ours.metrics["test_accuracy"] == pytest.approx(stopped.metrics["final_test_accuracy"], abs=0.02)


def test_a_diverging_network_is_recorded_and_leaves_the_others_alone():
    runs = [Run(seed=0, **SHORT), Run(seed=1, **SHORT)]
    points = [half_masked(run) for run in runs]
    points[0][0][0][0, 300] = torch.nan
    broken, sound = trained(runs, points)
    assert broken.metrics["diverged"]
    assert not sound.metrics["diverged"]
    assert sound.metrics["test_accuracy"] > 50


def test_batches_are_fresh_permutations_shared_by_the_treatments_of_a_seed():
    runs = [Run(seed=0, round=2), Run(seed=0, round=2, mask1="reinit"), Run(seed=1, round=2), Run(seed=0, round=3)]
    first, second = batches(runs, 0, 500, CPU), batches(runs, 1, 500, CPU)
    assert torch.equal(first[0], first[1])
    for other in (first[2], first[3], second[0]):
        assert not torch.equal(first[0], other)
    assert torch.equal(first.sort().values, torch.arange(500).expand(4, -1))


def test_dynamic_weight_rescaling_multiplies_by_weights_over_ones():
    mask = torch.tensor([[[1, 0, 0, 0], [0, 0, 0, 1]], [[1, 1, 1, 1], [1, 1, 1, 1]]]).float()
    assert rescaling(mask, torch.tensor([True, True])).flatten().tolist() == [4.0, 1.0]
    assert rescaling(mask, torch.tensor([False, True])).flatten().tolist() == [1.0, 1.0]


def learned_trainee(runs):
    return Scores(runs, stacked([starting_point(run) for run in runs]))


def test_a_learned_mask_is_bernoulli_of_the_sigmoid_and_its_gradient_passes_straight_through():
    run = Run(kind="learned", learning_rate=1.0, iterations=1)
    trainee = learned_trainee([run])
    scores = torch.full_like(trainee.trained[0], -1.0).requires_grad_()
    values = [scores, *trainee.trained[1:]]
    (effective, *_), _ = trainee.parameters(values)
    w = trainee.weights[0]
    assert torch.equal(effective, torch.where(effective != 0, w, 0))
    probability = torch.tensor(-1.0).sigmoid()
    assert (effective != 0).float().mean() == pytest.approx(probability.item(), abs=0.005)
    effective.sum().backward()
    torch.testing.assert_close(scores.grad, w * probability * (1 - probability))


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=CUDA)])
def test_what_rescaling_owes_to_the_mask_is_part_of_its_gradient(device):
    runs = [Run(kind="learned", seed=s, dwr=d, iterations=1, learning_rate=1.0) for s, d in ((0, True), (0, False))]
    start = stacked([starting_point(run) for run in runs])
    trainee = Scores(runs, there(start) if device == "cuda" else start)
    source = torch.Generator().manual_seed(0)
    scores = torch.randn(trainee.trained[1].shape, generator=source).to(device).requires_grad_()
    values = [trainee.trained[0], scores, trainee.trained[2]]
    (_, effective, _), _ = trainee.parameters(values)
    upstream = torch.randn(effective.shape, generator=source).to(device)
    (effective * upstream).sum().backward()

    plain = scores.detach().clone().requires_grad_()
    probability = plain.sigmoid()
    mask = (effective != 0).float() + probability - probability.detach()
    factor = torch.stack([mask[0].numel() / mask[0].sum(), torch.ones((), device=device)])
    expected = trainee.weights[1] * mask * factor.view(2, 1, 1)
    torch.testing.assert_close(effective, expected)
    (expected * upstream).sum().backward()
    torch.testing.assert_close(scores.grad, plain.grad, rtol=1e-4, atol=1e-7)
    to_mask = scores.grad / (probability * (1 - probability)).detach()
    as_a_whole = (to_mask * mask.detach()).flatten(1).sum(1)  # of a mask that grows everywhere by the same share
    assert abs(as_a_whole[0]) < 1e-3 < abs(as_a_whole[1])


def test_each_step_samples_a_fresh_mask_and_treatments_of_a_seed_share_it():
    runs = [
        Run(kind="learned", seed=s, dwr=d, iterations=1, learning_rate=1.0)
        for s, d in ((0, False), (0, True), (1, True))
    ]
    trainee = learned_trainee(runs)
    first, second = (trainee.leaves()[0][0] != 0 for _ in range(2))
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])
    assert not torch.equal(first[0], second[0])


def test_learning_a_mask_trains_scores_only():
    run = Run(kind="learned", mask1="constant_same_sign", batch=250, iterations=150, learning_rate=300.0, eval_every=50)
    (ours,) = trained([run], [starting_point(run)])
    assert all((b == 0).all() for b in ours.biases)
    assert ours.metrics["test_accuracy"] > 60
    assert 40 < ours.metrics["weights_remaining"] < 60


@pytest.mark.parametrize("name", NETWORKS)
def test_initial_weights_are_truncated_glorot_normals(name):
    for layer, w in zip(NETWORKS[name].layers, initial_weights(name, 3)):
        fan = 9 if layer.role == "conv" else 1
        variance = 2 / (fan * (layer.inputs + layer.outputs))
        assert w.var().item() == pytest.approx(variance, rel=0.05 if w.numel() > 5000 else 0.2)
        assert w.abs().max() <= 2 * variance**0.5 / 0.87962566 + 1e-6
        assert abs(w.mean()) < 5 * (variance / w.numel()) ** 0.5


def test_initial_weights_are_the_seeds_own():
    assert torch.equal(initial_weights("fc", 0)[0], initial_weights.__wrapped__("fc", 0)[0])
    assert not torch.equal(initial_weights("fc", 0)[0], initial_weights("fc", 1)[0])


@pytest.mark.parametrize(
    ("name", "weights"), [("fc", 266_200), ("conv2", 4_300_992), ("conv4", 2_425_024), ("conv6", 2_261_184)]
)
def test_networks_have_the_papers_number_of_weights(name, weights):
    assert NETWORKS[name].weights == weights == sum(w.numel() for w in initial_weights(name, 0))


@pytest.mark.parametrize("name", ["conv2", "conv6"])
def test_stacked_convolutions_equal_a_plain_module(name):
    network, source = NETWORKS[name], torch.Generator().manual_seed(0)
    stack = [initial_weights(name, seed) for seed in (0, 1)]
    weights = [torch.stack(layer) for layer in zip(*stack)]
    biases = [0.1 * torch.randn(w.shape[:2], generator=source) for w in weights]
    images = torch.rand(2, 3, 3, 32, 32, generator=source)
    ours = forward(network, weights, biases, images)
    for m in range(2):
        x = images[m]
        for i, layer in enumerate(network.layers):
            if layer.role == "conv":
                x = F.relu(F.conv2d(x, weights[i][m], biases[i][m], padding=1))
                x = F.max_pool2d(x, 2) if layer.pool else x
            else:
                x = x.permute(0, 2, 3, 1) if x.ndim == 4 else x  # features are flattened with the channels last
                x = F.linear(x.flatten(1), weights[i][m], biases[i][m])
                x = x if layer.role == "output" else F.relu(x)
        torch.testing.assert_close(ours[m], x, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", ["fc", "conv2"])
def test_without_the_hardware_bf16_gives_the_numbers_that_pytorch_gives(monkeypatch, name):
    source, layers = torch.Generator().manual_seed(0), len(NETWORKS[name].layers)
    images = torch.randn(2, 20, *data.load(NETWORKS[name].dataset).test.images.shape[1:], generator=source)
    start = [torch.stack([w, w.flip(0)]) for w in initial_weights(name, 0)]

    def numbers(bf16, hardware=True):
        monkeypatch.setattr(networks, "cpu_has_bf16", lambda: hardware)
        dtypes = [torch.bfloat16 if bf16 else torch.float32] * (layers - 1) + [torch.float32]
        weights = [w.to(d, copy=True).requires_grad_() for w, d in zip(start, dtypes)]
        biases = [w.flatten(2)[:, :, 0].clone().requires_grad_() for w in start]
        logits = forward(NETWORKS[name], weights, biases, images)
        (logits**2).sum().backward()
        return [logits, *(t.grad for t in [*weights, *biases])]

    exact, pytorchs, ours = numbers(False), numbers(True), numbers(True, hardware=False)
    for e, p, o in zip(exact, pytorchs, ours):
        assert p.dtype == o.dtype
        rounding = (p - e).norm()  # of bf16, beside fp32
        assert rounding > 0 and (o - p).norm() < rounding / 2, ((o - p).norm() / rounding, e.shape)


def test_evaluation_counts_hits_over_the_whole_split():
    dataset = data.load("mnist")
    weights = [torch.stack(layer) for layer in zip(initial_weights("fc", 0), initial_weights("fc", 1))]
    loss, accuracy = evaluate("fc", weights, [w.new_zeros(w.shape[:2]) for w in weights], dataset.validation)
    logits = plain_module(initial_weights("fc", 1))(dataset.validation.images)
    assert accuracy[1].item() == pytest.approx(
        100 * (logits.argmax(1) == dataset.validation.labels).float().mean().item()
    )
    assert loss[1].item() == pytest.approx(F.cross_entropy(logits, dataset.validation.labels).item(), rel=1e-4)


def test_a_gpu_evaluates_as_many_images_at_once_as_its_memory_allows():
    gb = 1e9 / 16  # what an evaluation may take of every gigabyte
    at_once = {
        (name, stack, gigabytes): images_at_once(NETWORKS[name], stack, 2, gigabytes * gb)
        for name in ("fc", "conv2", "conv6")
        for stack in (1, 16, 64)
        for gigabytes in (8, 80)
    }
    assert min(at_once.values()) == EVALUATION_BATCH  # however little memory there is
    assert 1600 < at_once["fc", 64, 8] < 1700  # 64 x 2 x (784 + 300 + 100) numbers, 303 kB, an image
    assert 900 < at_once["conv2", 64, 80] < 950  # 4 x 2 x 131 kB of convolutions, 64 x 2 x 34 kB of dense layers
    assert at_once["conv6", 64, 80] > at_once["conv2", 64, 80]  # narrower where it becomes dense
    assert at_once["conv2", 1, 80] > at_once["conv2", 16, 80] > at_once["conv2", 64, 80] > at_once["conv2", 64, 8]


@CUDA
@pytest.mark.parametrize(("precision", "kept"), [("fp32", 1.0), ("fp32", 0.1), ("bf16", 0.5)])
def test_cuda_agrees_with_the_cpu(precision, kept):
    runs = [Run(seed=s, precision=precision, **SHORT) for s in (0, 1)]
    start = stacked([half_masked(run, kept=kept) for run in runs])
    for a, b in zip(train(runs, start, images_of(runs[0])), train(runs, there(start), images_of(runs[0], "cuda"))):
        assert a.metrics["test_accuracy"] == pytest.approx(b.metrics["test_accuracy"], abs=0.5)
        assert a.metrics["validation_loss"] == pytest.approx(b.metrics["validation_loss"], rel=0.02)


@CUDA
@pytest.mark.parametrize("name", ["conv2", "conv6"])
def test_networks_side_by_side_on_cuda_are_computed_as_alone(name):
    source, seeds = torch.Generator().manual_seed(0), range(6)
    stack = [torch.stack(layer).cuda() for layer in zip(*(initial_weights(name, seed) for seed in seeds))]

    def results(weights, images):
        weights = [w.clone().requires_grad_() for w in weights]
        biases = [w.new_zeros(w.shape[:2]).requires_grad_() for w in weights]
        logits = forward(NETWORKS[name], weights, biases, images)
        (logits**2).sum().backward()
        return [logits.detach(), *(t.grad for t in [*weights, *biases])]

    for _ in range(3):
        images = torch.rand(len(seeds), 60, 3, 32, 32, generator=source).cuda()
        together = results(stack, images)
        for m in seeds:
            own = slice(m, m + 1)
            for ours, alone in zip(together, results([w[own] for w in stack], images[own])):
                assert (ours[own] - alone).norm() <= 0.01 * alone.norm()


@CUDA
def test_masks_and_restarts_made_on_cuda_are_those_of_the_cpu(monkeypatch):
    start, source = initial_weights("fc", 0), torch.Generator().manual_seed(0)
    final = [w + 0.05 * torch.randn(w.shape, generator=source) for w in start]
    finished = start, final, [torch.rand(w.shape, generator=source) < 0.7 for w in start]
    monkeypatch.setattr(
        starts, "finished_weights", lambda _, device: [[t.to(device) for t in part] for part in finished]
    )
    pruned = Run(round=1, stride=4)
    runs = [replace(pruned, criterion=name) for name in CRITERIA]
    runs += [replace(pruned, mask1=name) for name in MASK1_ACTIONS] + [replace(pruned, mask0=n) for n in MASK0_ACTIONS]
    for run in runs:
        (weights, masks), (there_weights, there_masks) = (starting_point(run, device) for device in ("cpu", "cuda"))
        for w, m, tw, tm in zip(weights, masks, there_weights, there_masks):
            assert tm.is_cuda and torch.equal(tm.cpu(), m), run
            torch.testing.assert_close(tw.cpu(), w)


@CUDA
@pytest.mark.parametrize("kind", ["train", "learned"])
@pytest.mark.parametrize("network", ["fc", "conv2"])
def test_a_training_on_cuda_learns_and_goes_on_from_a_checkpoint(kind, network):
    rate = NETWORKS[network].mask_rates[0] if kind == "learned" else NETWORKS[network].learning_rate
    short = SHORT | {"learning_rate": rate, "iterations": 90 if (kind, network) == ("learned", "conv2") else 30}
    runs = [Run(network=network, kind=kind, seed=s, dwr=True, precision="bf16", **short) for s in (0, 1)]
    start, images, memory = (
        there(stacked([starting_point(run) for run in runs])),
        images_of(runs[0], "cuda"),
        Memory(15),
    )
    whole = train(runs, start, images)
    with pytest.raises(Interrupted):
        train(runs, start, images, checkpoints=memory)
    for a, b in zip(whole, train(runs, start, images, checkpoints=memory)):
        assert a.metrics["test_accuracy"] > 15
        assert a.metrics["validation_loss"] == pytest.approx(b.metrics["validation_loss"], rel=0.02)


@pytest.mark.parametrize(
    ("kind", "network", "kept", "dropout"),
    [("train", "fc", 1.0, 0.0), ("train", "fc", 0.5, 0.0), ("train", "conv2", 0.05, 0.5), ("learned", "fc", 1.0, 0.0)],
)
def test_on_an_accelerator_the_loop_waits_for_no_number(monkeypatch, kind, network, kept, dropout):
    """The device "meta" stands in: it has shapes but no numbers, so that to read one is an error. What is done once per
    training, before the loop, is replaced."""

    def chosen(mask, dtype):
        few = torch.zeros(int(kept * mask.numel()), dtype=torch.long, device=mask.device)
        return (few, None) if kept < SPARSE else (None, None if kept == 1 else mask.to(dtype))

    monkeypatch.setattr(trainees, "_chosen", chosen)
    monkeypatch.setattr(randomness, "generator", lambda *key, device: torch.Generator())
    for name in ("Adam", "SGD"):  # the fused ones know no meta device
        plain = getattr(torch.optim, name)
        monkeypatch.setattr(torch.optim, name, lambda values, plain=plain, fused=True, **more: plain(values, **more))
    there, layers = torch.device("meta"), NETWORKS[network].layers
    with pytest.raises(RuntimeError, match="meta"):
        torch.zeros(2, device=there).sum().item()
    runs = [Run(network=network, kind=kind, seed=s, dwr=bool(s), precision="bf16", dropout=dropout) for s in (0, 1)]
    start = Start(
        *([torch.zeros(2, *n.shape, dtype=d, device=there) for n in layers] for d in (torch.float, torch.bool))
    )
    shape = (784,) if network == "fc" else (3, 32, 32)
    images = torch.zeros(600, *shape, dtype=torch.bfloat16, device=there)
    split = data.Split(images, torch.zeros(600, dtype=torch.long, device=there))
    trainee = trainee_of(runs, start)
    for state in trainee.optimiser.state.values():
        if kind == "train":
            state["step"] = torch.tensor(0.0)  # where an Adam that is not fused has it
    readout = Readout(runs, trainee, data.Dataset(split, split, split, split))
    for i in range(2):
        step(runs[0], trainee, split, torch.zeros(2, 60, dtype=torch.long, device=there))
        readout.validate(i)
    assert {tensor.device for tensor in [*trainee.trained, *readout.best, readout.best_at]} == {there}


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError(), MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_out_of_memory_halves_the_stack(monkeypatch, error):
    done, limit = [], 3

    def fake(runs, device, deadline):
        if len(runs) > limit:
            raise error
        done.extend(runs)

    monkeypatch.setattr(lottery, "_do", fake)
    runs = [Run(seed=s, **SHORT) for s in range(10)]
    lottery._do_all(runs, 8, "cpu", math.inf)
    assert done == runs


class Interrupted(Exception):
    pass


class Memory:
    """Checkpoints in memory; the training is interrupted after the one at iteration `at`."""

    def __init__(self, at):
        self.at, self.calls, self.kept = at, 0, (0, {})

    def load(self):
        return self.kept

    def due(self):
        self.calls += 1
        return self.calls == self.at

    def save(self, iteration, tensors):
        self.kept = iteration, {name: tensor.clone() for name, tensor in tensors.items()}
        raise Interrupted


@pytest.mark.parametrize("at", [7, 20, 23])
@pytest.mark.parametrize(
    ("kind", "kept", "dropout"), [("train", 1.0, 0.0), ("train", 0.1, 0.0), ("train", 0.5, 0.5), ("learned", 1.0, 0.0)]
)
def test_a_training_goes_on_from_a_checkpoint_as_if_never_interrupted(kind, kept, dropout, at):
    same = {"kind": kind, "dropout": dropout, "test_images": 1000, **SHORT}
    runs = [Run(seed=s, dwr=bool(s), **same) for s in (0, 1)]
    points = [half_masked(run, kept=kept) for run in runs]
    whole = trained(runs, points)
    memory = Memory(at)
    with pytest.raises(Interrupted):
        train(runs, stacked(points), data.load("mnist"), checkpoints=memory)
    assert memory.kept[0] == at
    for a, b in zip(whole, train(runs, stacked(points), data.load("mnist"), checkpoints=memory)):
        assert a.metrics == b.metrics
        assert a.history == b.history
        assert all(torch.equal(x, y) for x, y in zip(a.weights + a.biases + a.masks, b.weights + b.biases + b.masks))


def test_every_way_to_run_the_convolutions_of_a_stack_gives_the_same_features():
    from bench.convolutions import WAYS, inputs

    given = inputs("conv4", 3, "fp32", "cpu")
    expected, *others = [way(*given) for way in WAYS.values()]
    for features in others:
        torch.testing.assert_close(features, expected, atol=1e-4, rtol=1e-3)
