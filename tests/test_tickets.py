"""Tickets and supermasks as files: a bit per weight, loaded as ordinary modules whose accuracy is the table's."""

import pytest
import torch

import lt_utils as lt
from lt_utils import data, tickets
from lt_utils import store as run_store
from lt_utils.networks import forward, initial_weights
from lt_utils.starts import starting_point


@pytest.fixture
def fp32():
    return lt.settings("smoke", iterations=40, eval_every=20, levels=[5], rounds=1, stride=5, precision="fp32")


@pytest.mark.parametrize("kind", ["found", "learned"])
@pytest.mark.parametrize("mask1", ["rewind", "constant_same_sign"])
def test_a_supermask_is_a_bit_per_weight_and_loads_with_its_accuracy(store, tmp_path, fp32, kind, mask1):
    axes = {"criterion": ["large_final_same_sign"]} if kind == "found" else {"dwr": [True]}
    (run,) = lt.sweep(fp32, kind=kind, mask1=[mask1], **axes)
    row = lt.run([run]).iloc[0]
    size = lt.save_ticket(run, tmp_path / "mask.safetensors")
    assert 266_200 / 8 < size < 266_200 / 8 + 2000
    assert size * 30 < tickets.dense_bytes("fc") == 4 * (266_200 + 410)  # fp32 weights and biases
    loaded = lt.load_ticket(tmp_path / "mask.safetensors")
    accuracy = row["test_accuracy"] if kind == "found" else row["mask_accuracy"]
    assert tickets.accuracy(loaded, "mnist") == pytest.approx(accuracy, abs=0.02)


def test_a_trained_ticket_loads_with_its_accuracy_and_an_untrained_one_with_its_start(store, tmp_path, fp32):
    run = lt.sweep(fp32, criterion=["large_final"])[-1]
    row = lt.run([run]).iloc[0]
    size = lt.save_ticket(run, tmp_path / "trained.safetensors", trained=True)
    assert size < 266_200 / 8 + 4 * 0.33 * 266_200 + 8000
    loaded = lt.load_ticket(tmp_path / "trained.safetensors")
    assert tickets.accuracy(loaded, "mnist") == pytest.approx(row["final_test_accuracy"], abs=0.02)
    lt.save_ticket(run, tmp_path / "start.safetensors")
    start = lt.load_ticket(tmp_path / "start.safetensors")
    for layer, w, m in zip(start[1::2], initial_weights("fc", 0), run_store.mask(run)):
        assert torch.equal(layer.weight, w * m)


@pytest.mark.parametrize("start", [{"mask1": ["reinit"]}, {"noise": [2.0]}])
def test_what_a_ticket_restarts_from_is_drawn_again_when_it_is_loaded(store, tmp_path, fp32, start):
    (run,) = lt.sweep(fp32, schedule=["ticket"], round=[1], **start)
    lt.run([run])
    lt.save_ticket(run, tmp_path / "start.safetensors")
    loaded = lt.load_ticket(tmp_path / "start.safetensors")
    for layer, w in zip(loaded[1::2], starting_point(run)[0]):
        assert torch.equal(layer.weight, w)


@pytest.mark.parametrize("network", ["conv2", "conv4", "conv6"])
def test_a_module_computes_what_the_stack_computes(network):
    weights = initial_weights(network, 0)
    biases = [0.1 * torch.randn(len(w)) for w in weights]
    images = data.load("cifar10").test.images[:3]
    ours = forward(lt.NETWORKS[network], [w[None] for w in weights], [b[None] for b in biases], images[None])[0]
    torch.testing.assert_close(tickets.module(network, list(weights), biases)(images), ours, atol=1e-4, rtol=1e-3)


def test_what_cannot_be_saved_or_loaded_says_why(store, tmp_path, fp32):
    frozen = lt.sweep(fp32, mask0=["init"])[-1]
    lt.run([frozen])
    with pytest.raises(ValueError, match="trained=True"):
        lt.save_ticket(frozen, tmp_path / "x")
    learned = lt.sweep(fp32, kind="learned")[0]
    with pytest.raises(ValueError, match="trained=False"):
        lt.save_ticket(learned, tmp_path / "x", trained=True)
    with pytest.raises(run_store.Gone):
        lt.save_ticket(learned, tmp_path / "x")
    lt.save_ticket(frozen, tmp_path / "x", trained=True)
    content = bytearray((tmp_path / "x").read_bytes())
    content[-1] ^= 1
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ValueError, match="no ticket that can be loaded"):
        lt.load_ticket(tmp_path / "x")
