"""Mask criteria against literal arrays, and the invariants of pruning."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lt_utils.criteria import CRITERIA, cut, prune, prune_count

W_I = torch.tensor([0.5, -0.1, 0.3, -0.4, 0.2, -0.6])
W_F = torch.tensor([0.6, 0.3, -0.2, -0.9, 0.05, -0.1])
KEPT = {  # which weights are kept when 3 of the 6 are pruned
    "large_final": [1, 1, 0, 1, 0, 0],
    "small_final": [0, 0, 1, 0, 1, 1],
    "large_init": [1, 0, 0, 1, 0, 1],
    "small_init": [0, 1, 1, 0, 1, 0],
    "magnitude_increase": [1, 1, 0, 1, 0, 0],
    "movement": [0, 0, 1, 1, 0, 1],
    "large_final_same_sign": [1, 0, 0, 1, 0, 1],
    "large_init_large_final": [1, 0, 1, 1, 0, 0],
    "small_init_small_final": [0, 1, 1, 0, 1, 0],
    "magnitude_increase_same_sign": [1, 0, 0, 1, 1, 0],
}


def mask_of(name, w_i, w_f, count, seed=0):
    kept = torch.ones_like(w_i, dtype=torch.bool)
    return prune(name, w_i, w_f, kept, count, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("name", "kept"), KEPT.items())
def test_literal_masks(name, kept):
    assert mask_of(name, W_I, W_F, 3).int().tolist() == kept


def test_literal_masks_where_few_weights_changed_sign():
    # weights 1 and 2 changed sign: the diff-sign criteria keep them first, then chance decides
    assert mask_of("large_final_diff_sign", W_I, W_F, 4).int().tolist() == [0, 1, 1, 0, 0, 0]
    assert mask_of("large_final_diff_sign", W_I, W_F, 5).int().tolist() == [0, 1, 0, 0, 0, 0]
    assert mask_of("magnitude_increase_diff_sign", W_I, W_F, 5).int().tolist() == [0, 1, 0, 0, 0, 0]
    assert mask_of("magnitude_increase_diff_sign", W_I, W_F, 4).int().tolist() == [0, 1, 1, 0, 0, 0]


def test_a_flipped_weight_never_outranks_one_that_kept_its_sign_but_shrank():
    w_i, w_f = torch.tensor([0.5, 0.1, -0.2]), torch.tensor([0.1, -0.9, 0.3])
    assert mask_of("magnitude_increase_same_sign", w_i, w_f, 2).tolist() == [True, False, False]


weights = st.lists(
    st.floats(-1, 1, width=32, allow_subnormal=False).filter(lambda x: abs(x) > 1e-3), min_size=2, max_size=40
)


@pytest.mark.parametrize("name", ["large_init_large_final", "small_init_small_final"])
@settings(deadline=None, max_examples=60)
@given(st.data())
def test_two_sided_criteria_agree_with_the_papers_formula(name, data):
    """There is a factor a for which the paper's literal score, min(a|w_f|, |w_i|) or -max, cuts to the same mask, and
    the same number of |w_i| and of |w_f| lies beyond the threshold (ranks stand in for the code's bisection)."""
    n = data.draw(st.integers(5, 40))
    w_i = torch.randn(n, generator=torch.Generator().manual_seed(n)).abs()
    w_f = torch.randn(n, generator=torch.Generator().manual_seed(n + data.draw(st.integers(1, 1000)))).abs()
    large = name.startswith("large")
    p = data.draw(st.integers(1, n - 1))  # how many of each lie beyond the threshold
    i, f = (x.sort(descending=not large).values for x in (w_i, w_f))
    threshold_i, threshold_f = (i[p - 1] + i[p]) / 2, (f[p - 1] + f[p]) / 2
    a = threshold_i / threshold_f
    scores = torch.minimum(a * w_f, w_i) if large else -torch.maximum(a * w_f, w_i)
    expected = scores > (threshold_i if large else -threshold_i)
    count = int((~expected).sum())
    assert torch.equal(mask_of(name, w_i, w_f, count), expected)


@pytest.mark.parametrize("name", CRITERIA)
@settings(deadline=None, max_examples=25)
@given(w=weights, seed=st.integers(0, 99), kept=st.sampled_from([0.8, 0.9, 0.5, 0.512]))
def test_masks_have_exact_counts_shrink_and_never_regrow(name, w, seed, kept):
    w_i = torch.tensor(w)
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones_like(w_i, dtype=torch.bool)
    for _ in range(4):
        w_f = torch.randn(len(w), generator=generator)
        before, count = mask, prune_count(kept, int(mask.sum()))
        mask = prune(name, w_i, w_f, before, count, generator)
        assert int(before.sum()) - int(mask.sum()) == count
        assert not (mask & ~before).any()


@pytest.mark.parametrize("name", CRITERIA)
def test_every_pruned_weight_scores_no_higher_than_every_kept_one(name, source):
    w_i, w_f = torch.randn(500, generator=source), torch.randn(500, generator=source)
    mask, scores = mask_of(name, w_i, w_f, 200), CRITERIA[name](w_i, w_f)
    assert scores[~mask].max() <= scores[mask].min()


def test_ties_break_at_random_and_the_same_way_for_the_same_seed():
    scores = torch.zeros(1000)
    masks = [cut(scores, 300, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert [int(m.sum()) for m in masks] == [700] * 3
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])
    assert 0.25 < (~masks[0][:500]).float().mean() < 0.35  # spread evenly, not from one end


def test_only_ties_at_the_threshold_are_left_to_chance():
    scores = torch.tensor([0.0, 1.0, 1.0, 1.0, 2.0])
    for seed in range(20):
        mask = cut(scores, 2, torch.Generator().manual_seed(seed))
        assert not mask[0]
        assert mask[4]
        assert int(mask.sum()) == 3


def test_scores_that_are_not_numbers_rank_lowest():
    assert cut(torch.tensor([torch.nan, 1.0, -5.0]), 1, torch.Generator()).tolist() == [False, True, True]


def test_counts_are_exact_decimals():
    assert prune_count(0.8, 1200) == 240  # in floats, floor((1 - 0.8) * 1200) is 239
    assert prune_count(0.9, 1000) == 100
    assert prune_count(0.8, 235_200, 3) == 235_200 * 488 // 1000
    assert prune_count(0.8, 100, 0) == 0
