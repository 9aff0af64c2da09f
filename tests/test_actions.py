"""The defining property of every mask-1 and mask-0 action."""

import pytest
import torch

from lt_utils.actions import MASK0_ACTIONS, MASK1_ACTIONS, Pruning, restart
from lt_utils.networks import Layer, initial_weights


@pytest.fixture
def pruning(source):
    """The FC network's first layer in its second round: a fifth is pruned just now, a fifth was frozen before."""
    w_0 = initial_weights("fc", 0)[0]
    part = torch.rand(w_0.shape, generator=source)
    before, kept = part > 0.2, part > 0.4
    w_i = torch.where(before, w_0, 0.25)  # 0.25: where the earlier round froze its weights
    w_f = torch.where(before, w_0 + 0.03 * torch.randn(w_0.shape, generator=source), w_i)
    return Pruning(Layer("dense", 784, 300), w_0, w_i, w_f, kept, before & ~kept, source)


@pytest.mark.parametrize("mask0", MASK0_ACTIONS)
@pytest.mark.parametrize("mask1", MASK1_ACTIONS)
def test_weights_frozen_in_an_earlier_round_keep_their_value(pruning, mask1, mask0):
    earlier = ~pruning.kept & ~pruning.pruned
    assert (restart(pruning, mask1, mask0)[earlier] == 0.25).all()


@pytest.mark.parametrize("name", [name for name in MASK1_ACTIONS if name.endswith("same_sign")])
def test_same_sign_actions_keep_every_sign(pruning, name):
    values = restart(pruning, name, "zero")
    assert torch.equal(values.sign()[pruning.kept], pruning.w_i.sign()[pruning.kept])
    assert not torch.equal(values[pruning.kept], pruning.w_i[pruning.kept])


@pytest.mark.parametrize("name", ["reinit", "reshuffle", "constant"])
def test_sign_free_actions_keep_half_of_the_signs(pruning, name):
    values = restart(pruning, name, "zero")
    agree = (values.sign() == pruning.w_i.sign())[pruning.kept].float().mean()
    assert 0.49 < agree < 0.51


def test_rewind_restores_the_start(pruning):
    assert torch.equal(restart(pruning, "rewind", "zero")[pruning.kept], pruning.w_i[pruning.kept])


@pytest.mark.parametrize("name", ["reshuffle", "reshuffle_same_sign"])
def test_reshuffling_keeps_the_multiset_of_values(pruning, name):
    kept, values = pruning.kept, restart(pruning, name, "zero")
    own, new = pruning.w_i[kept], values[kept]
    if name.endswith("same_sign"):
        own, new = own.abs(), new.abs()
    assert torch.equal(own.sort().values, new.sort().values)
    assert (own != new).float().mean() > 0.99


@pytest.mark.parametrize("name", ["constant", "constant_same_sign"])
def test_constants_are_plus_or_minus_the_layers_standard_deviation(pruning, name):
    values = restart(pruning, name, "zero")[pruning.kept]
    a = pruning.w_0.std()
    assert set(values.tolist()) == {a.item(), -a.item()}


def test_reinit_draws_from_the_initial_distribution(pruning):
    values = restart(pruning, "reinit", "zero")[pruning.kept]
    assert values.std() == pytest.approx(pruning.layer.glorot_std, rel=0.01)
    assert len(set(values[:1000].tolist()) & set(pruning.w_0.flatten().tolist())) < 20


def frozen(pruning, name):
    return restart(pruning, "rewind", name)[pruning.pruned]


def test_zero_and_init(pruning):
    assert (frozen(pruning, "zero") == 0).all()
    assert torch.equal(frozen(pruning, "init"), pruning.w_i[pruning.pruned])


def test_variant_1_zeroes_exactly_what_moved_toward_zero(pruning):
    toward = (pruning.w_f.abs() < pruning.w_i.abs())[pruning.pruned]
    values = frozen(pruning, "variant_1")
    assert (values[toward] == 0).all()
    assert torch.equal(values[~toward], pruning.w_i[pruning.pruned][~toward])


def test_variant_2_also_restarts_kept_weights_that_moved_toward_zero_from_zero(pruning):
    values, kept = restart(pruning, "rewind", "variant_2"), pruning.kept
    toward = pruning.w_f.abs() < pruning.w_i.abs()
    assert (values[kept & toward] == 0).all()
    assert torch.equal(values[kept & ~toward], pruning.w_i[kept & ~toward])
    assert torch.equal(values[pruning.pruned], frozen(pruning, "variant_1"))


def test_control_random_sets_as_many_zeros_elsewhere(pruning):
    ours, control = frozen(pruning, "variant_1"), frozen(pruning, "control_random")
    assert (control == 0).sum() == (ours == 0).sum() > 1000
    assert not torch.equal(control == 0, ours == 0)
    assert torch.equal(control[control != 0], pruning.w_i[pruning.pruned][control != 0])


def test_control_reverse_is_the_complement_of_variant_1(pruning):
    ours, control = frozen(pruning, "variant_1"), frozen(pruning, "control_reverse")
    assert torch.equal(control == 0, ours != 0)


def test_a_weight_that_did_not_move_moved_neither_way(pruning):
    still = Pruning(**{**vars(pruning), "w_f": pruning.w_i})
    for name in ("variant_1", "control_reverse"):
        assert torch.equal(frozen(still, name), frozen(still, "init"))
