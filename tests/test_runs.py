"""Runs, their identity, and the store: found again, never repeated; every round prunes what it should."""

import json
import math

import pytest
import torch

import lt_utils as lt
from lt_utils import lottery, plan, profiles
from lt_utils import store as run_store
from lt_utils.networks import NETWORKS
from lt_utils.runs import Run
from lt_utils.starts import starting_point

BASE = {"iterations": 12, "learning_rate": 1.2e-3, "eval_every": 6}


@pytest.fixture
def trainings(monkeypatch):
    """The runs that were really trained, in order."""
    done = []
    real = lottery.train

    def counting(runs, *rest):
        done.extend(runs)
        return real(runs, *rest)

    monkeypatch.setattr(lottery, "train", counting)
    return done


def test_equal_work_has_one_key_and_different_work_another():
    dense = Run(**BASE)
    assert dense.key == Run(criterion="random", mask1="reinit", mask0="init", stride=3, **BASE).key
    assert Run(round=1, **BASE).key == Run(round=1, schedule="one_shot", **BASE).key
    assert Run(round=2, **BASE).key != Run(round=2, schedule="one_shot", **BASE).key
    assert (
        Run(kind="found", round=6, schedule="one_shot", **BASE).key
        == Run(kind="found", round=2, stride=3, schedule="one_shot", **BASE).key
    )
    varied = [
        Run(seed=1, **BASE),
        Run(**{**BASE, "iterations": 13}),
        Run(network="conv2", **BASE),
        Run(kind="learned", **BASE),
        *(Run(round=1, criterion=c, **BASE) for c in lt.CRITERIA),
        *(Run(round=1, mask1=a, **BASE) for a in lt.MASK1_ACTIONS),
        *(Run(round=1, mask0=a, **BASE) for a in lt.MASK0_ACTIONS),
        *(Run(round=1, noise=n, schedule="ticket", **BASE) for n in (0.5, 2.0)),
        Run(dropout=0.5, **BASE),
        Run(round=1, dropout=0.5, **BASE),
    ]
    assert len({run.key for run in [dense, *varied]}) == 1 + len(varied) - 2  # large_final, rewind, zero is one run


def test_masks_learn_at_the_rate_of_their_network_and_kind_unless_another_is_given():
    def rates(**given):
        s = lt.settings("overnight", supermasks="learned", networks=["conv6"], seeds=1, **given)
        return {run.dwr: run.learning_rate for run in lt.sweep(s, kind="learned", dwr=[False, True])}

    assert dict(enumerate(NETWORKS["conv6"].mask_rates)) == rates()
    assert rates()[False] != rates()[True]
    assert rates(mask_rate=7.0) == {False: 7.0, True: 7.0}
    assert {run.learning_rate for run in lt.sweep(lt.settings("smoke"), kind="learned", learning_rate=5.0)} == {5.0}


@pytest.mark.parametrize("profile", ["quick", "evening", "overnight", "paper"])
def test_learned_masks_are_validated_at_the_ends_of_epochs(profile):
    runs = lt.sweep(lt.settings(profile, supermasks="learned"), kind="learned")
    images = {"mnist": 55_000, "cifar10": 45_000}
    assert all(run.eval_every % (images[NETWORKS[run.network].dataset] // run.batch) == 0 for run in runs)


def test_a_run_says_what_it_builds_on():
    third = Run(round=3, criterion="movement", mask0="init", **BASE)
    assert third.parent.round == 2
    assert third.parent.criterion == "movement"
    assert third.parent.parent.parent == Run(**BASE)
    assert Run(round=3, schedule="one_shot", **BASE).parent == Run(**BASE)
    ticket = Run(round=3, schedule="ticket", mask1="reinit", **BASE)
    assert ticket.parent == Run(round=3, **BASE)
    assert Run(round=3, schedule="ticket", noise=2.0, **BASE).parent == Run(round=3, **BASE)
    assert Run(round=1, dropout=0.5, **BASE).parent == Run(dropout=0.5, **BASE)
    assert Run(kind="learned", **BASE).parent is None


@pytest.mark.parametrize(
    ("field", "value", "hint"),
    [
        ("criterion", "large_finl", "large_final"),
        ("mask1", "rewnd", "rewind"),
        ("mask0", "zeros", "variant_1"),
        ("network", "resnet", "conv2"),
        ("kind", "trained", "learned"),
        ("schedule", "oneshot", "one_shot"),
        ("iterations", 0, "impossible"),
        ("seed", -1, "impossible"),
        ("round", 1.5, "whole number"),
        ("dropout", 1.0, "below 1"),
        ("noise", -0.5, "at least 0"),
        ("noise", 0.5, "schedule"),
    ],
)
def test_impossible_runs_are_refused_with_the_right_choices(field, value, hint):
    with pytest.raises(ValueError, match=hint):
        Run(**{**BASE, field: value})


def test_impossible_settings_are_refused_with_the_right_choices():
    for wrong, hint in (
        ({"profile": "quik"}, "quick"),
        ({"profile": "quick", "networks": ["fcn"]}, "conv2"),
        ({"profile": "quick", "rounds": -1}, "above 0"),
        ({"profile": "quick", "round": 3}, "rounds"),
        ({"profile": "quick", "rounds": 2.5}, "whole number"),
        ({"profile": "quick", "iterations": "many"}, "whole number"),
        ({"profile": "quick", "mask_rate": float("nan")}, "a number above 0"),
        ({"profile": "quick", "seeds": 0}, "seeds = 0 "),
        ({"profile": "quick", "seeds": 2.0}, "a count above 0"),
        ({"profile": "quick", "seeds": [1, 1]}, "different"),
        ({"profile": "quick", "levels": 3}, "list"),
        ({"profile": "quick", "levels": [0, -1]}, "from 0 on"),
        ({"profile": "quick", "networks": []}, "at least one network"),
        ({"profile": "quick", "criteria": []}, "at least one criterion"),
    ):
        with pytest.raises(ValueError, match=hint):
            lt.settings(**wrong)
    with pytest.raises(ValueError, match="criterion"):
        lt.sweep(lt.settings("smoke"), criteria=["random"])


@pytest.mark.parametrize("stride", [1, 4])
def test_rounds_end_where_nothing_is_left_to_prune(stride):
    def prunes(rounds):
        *_, last = lt.sweep(lt.settings("paper", networks=["conv6"], seeds=1, rounds=rounds, stride=stride))
        left = [math.prod(layer.shape) for layer in NETWORKS["conv6"].layers]
        for _ in range(rounds - 1):
            left = [n - pruned for n, pruned in zip(left, last.prune_counts(left))]
        return any(last.prune_counts(left))

    deepest = profiles.deepest_round("conv6", stride)
    assert prunes(deepest)
    with pytest.raises(ValueError, match=f"conv6 has nothing left to prune after {deepest}"):
        lt.settings("paper", networks=["conv6"], rounds=deepest + 1, stride=stride)


def test_an_axis_of_one_value_needs_no_list(tiny):
    ours = lt.sweep(tiny, criterion="movement", schedule="ticket", noise=0.5, round=2)
    assert ours == lt.sweep(tiny, criterion=["movement"], schedule=["ticket"], noise=[0.5], round=[2])
    assert lt.settings("quick", networks="conv2") == lt.settings("quick", networks=["conv2"])
    assert lt.settings("quick", criteria="random") == lt.settings("quick", criteria=["random"])


def test_settings_take_the_profile_where_no_parameter_is_given():
    assert lt.settings("quick").label == "quick"
    changed = lt.settings("quick", seeds=5, rounds=None, iterations=100)
    assert (changed.label, changed.seeds, changed.iterations("fc")) == ("quick-custom", (0, 1, 2, 3, 4), 100)
    assert lt.settings("paper").iterations("conv6") == 30_000
    assert lt.settings("paper").scale.rounds == 24


def test_learned_masks_may_have_fewer_seeds_unless_seeds_are_asked_for():
    def seeds(kind, **given):
        settings = lt.settings("overnight", supermasks="learned", networks="conv2", **given)
        return {run.seed for run in lt.sweep(settings, kind)}

    assert (seeds("found"), seeds("learned")) == ({0, 1, 2}, {0})
    assert seeds("learned", seeds=[4, 5]) == {4, 5}
    # the count that FC has anyway is more than Conv2 has
    assert lt.settings("overnight", supermasks="found", seeds=5).label == "overnight-custom"
    assert lt.settings("overnight", seeds=5).label == "overnight"


def test_bf16_is_taken_where_the_hardware_has_it_or_when_asked_for(monkeypatch):
    monkeypatch.delenv("PRECISION", raising=False)
    for machine in ("fp32", "bf16"):
        monkeypatch.setattr(profiles, "fast_precision", lambda machine=machine: machine)
        taken = {name: lt.settings(name).precision("fc") for name in profiles.PROFILES}
        assert taken == dict.fromkeys(profiles.PROFILES, machine) | {"paper": "fp32"}
    monkeypatch.setenv("PRECISION", "fp32")
    asked = lt.settings("overnight")
    assert (asked.precision("fc"), asked.label) == ("fp32", "overnight")


def test_precision_is_asked_for_all_networks_or_for_single_ones(monkeypatch):
    monkeypatch.setattr(profiles, "fast_precision", lambda: "machine's")
    settings = lt.settings("smoke", supermasks="found", networks=["fc", "conv2"], levels=[0])
    for asked, expected in {
        "": ("machine's", "machine's"),
        "bf16": ("bf16", "bf16"),
        "conv2=bf16": ("machine's", "bf16"),
        "conv2=bf16 fp32": ("fp32", "bf16"),
        "fc=bf16 conv2=fp32": ("bf16", "fp32"),
    }.items():
        monkeypatch.setenv("PRECISION", asked)
        assert (settings.precision("fc"), settings.precision("conv2")) == expected
    assert {(run.network, run.precision) for run in lt.sweep(settings)} == {("fc", "bf16"), ("conv2", "fp32")}
    for asked, why in {"fp8": "bf16, fp32", "conv2=": "bf16, fp32", "conv3=fp32": "conv2, conv4, conv6, fc"}.items():
        monkeypatch.setenv("PRECISION", asked)
        with pytest.raises(ValueError, match=f"PRECISION.*{why}"):
            settings.precision("fc")


@pytest.mark.filterwarnings("error")
def test_training_in_emulated_bf16_warns_and_reading_its_results_does_not(store, monkeypatch):
    monkeypatch.setattr(lottery, "fast_precision", lambda: "fp32")
    runs = lt.sweep(lt.settings("smoke", rounds=1, iterations=2, precision="bf16"))
    with pytest.warns(UserWarning, match="emulates"):
        trained = lt.run(runs)
    assert lt.run(runs).equals(trained)


def test_a_new_field_at_its_default_leaves_keys_valid():
    assert Run(**BASE).key == "b80a3e19577ff30fa579"  # changes only with RESULTS_VERSION: old results would be lost


def test_finished_runs_are_found_again_and_only_what_is_new_is_trained(store, tiny, trainings):
    first = lt.run(lt.sweep(tiny, criterion=["large_final"]))
    assert len(trainings) == 2 * 3  # seeds x (dense and two rounds)
    again = lt.run(lt.sweep(tiny, criterion=["large_final"]))
    assert len(trainings) == 6
    assert again.equals(first)
    lt.run(lt.sweep(tiny, criterion=["large_final", "random"]))
    assert len(trainings) == 6 + 2 * 2  # the dense network is shared


def test_a_chain_can_be_lengthened(store, trainings):
    lt.run(lt.sweep(lt.settings("smoke", rounds=1, iterations=12)))
    lt.run(lt.sweep(lt.settings("smoke", rounds=2, iterations=12)))
    assert [run.round for run in trainings] == [0, 1, 2]


def test_a_branch_from_a_run_whose_weights_are_gone_trains_it_again_and_says_so(store, trainings, capsys):
    s = lt.settings("smoke", iterations=12)
    before = lt.run(lt.sweep(s))
    (gone,) = [run for run in lt.sweep(s) if run.round == 1]
    assert not run_store.has_weights(gone)
    last = next(run for run in lt.sweep(s) if run.round == 2)
    run_store._entry(last).joinpath("run.json").unlink()
    assert "Left: 2 (1 done again, " in plan.cost(lottery.missing(lt.sweep(s)))
    capsys.readouterr()
    after = lt.run(lt.sweep(s))
    assert "1 trainings are new, 1 found, 1 done again, " in capsys.readouterr().err
    assert [run.round for run in trainings] == [0, 1, 2, 1, 2]
    assert after.drop(columns="seconds").equals(before.drop(columns="seconds"))


def test_entries_are_plain_files_with_provenance(store, tiny):
    runs = lt.sweep(tiny)
    lt.run(runs)
    entry = run_store._entry(runs[1])
    content = json.loads((entry / "run.json").read_text())
    assert content["run"]["round"] == 1
    assert set(content["provenance"]) == {"version", "commit", "torch", "device", "seconds"}
    assert (entry / "mask.safetensors").stat().st_size < 266_200 / 8 + 1000  # one bit per weight
    assert not list(store.rglob(".aside*"))


@pytest.mark.parametrize("criterion", lt.CRITERIA)
def test_kept_percentages_per_layer_and_round(store, criterion):
    """Iterative pruning at the paper's rates: floor((1 - rate) * kept) go from each layer each round; masks nest."""
    s = lt.settings("smoke", stride=1, rounds=3, iterations=2)
    runs = lt.sweep(s, criterion=[criterion])
    table = lt.run(runs).set_index("round")
    kept = [235_200, 30_000, 1_000]
    masks = {}
    for run in runs[1:]:
        kept = [n - n * p // 10 for n, p in zip(kept, (2, 2, 1))]  # 0.8 of dense layers, 0.9 of the output layer
        masks[run.round] = run_store.mask(run)
        assert [int(m.sum()) for m in masks[run.round]] == kept
        assert table.loc[run.round, "weights_remaining"] == pytest.approx(100 * sum(kept) / 266_200)
        assert table.loc[run.round, "layer_2_remaining"] == pytest.approx(kept[2] / 10, rel=1e-6)
        if run.round > 1:
            assert not any((m & ~before).any() for m, before in zip(masks[run.round], masks[run.round - 1]))


def test_one_shot_and_ticket_runs_have_the_density_of_their_round(store):
    s = lt.settings("smoke", stride=3, rounds=2, iterations=2)
    iterative, one_shot, ticket = (
        lt.sweep(s, schedule=[x], mask1=[y], round=[2])[0]
        for x, y in (("iterative", "rewind"), ("one_shot", "rewind"), ("ticket", "reinit"))
    )
    lt.run([iterative, one_shot, ticket])
    a, b, c = (run_store.mask(run) for run in (iterative, one_shot, ticket))
    assert all(abs(int(x.sum()) - int(y.sum())) <= 2 for x, y in zip(a, b))
    assert all(torch.equal(x, y) for x, y in zip(a, c))
    rewound, _ = starting_point(iterative)
    drawn, _ = starting_point(ticket)
    assert (rewound[0][a[0]] != drawn[0][a[0]]).all()


def test_noise_is_gaussian_falls_on_the_kept_weights_alone_and_is_in_units_of_the_layers_start(store):
    s = lt.settings("smoke", stride=3, rounds=1, iterations=2)
    ticket, *noisy = lt.sweep(s, schedule=["ticket"], noise=[0.0, 0.5, 2.0], round=[1])
    lt.run([ticket, *noisy])
    rewound, mask = starting_point(ticket)
    for run in noisy:
        values, same = starting_point(run)
        assert all(torch.equal(a, b) for a, b in zip(mask, same))
        for layer, v, w, m in zip(lt.NETWORKS["fc"].layers, values, rewound, mask):
            assert torch.equal(v[~m], w[~m])
            added = (v - w)[m] / layer.glorot_std
            assert added.std().item() == pytest.approx(run.noise, rel=0.1)
            assert added.mean().item() == pytest.approx(0, abs=0.2 * run.noise)


def test_how_far_weights_went_is_that_of_the_dense_training_by_the_runs_mask(store):
    s = lt.settings("smoke", stride=6, rounds=2, iterations=20)
    runs = [*lt.sweep(s, criterion=["movement"]), *lt.sweep(s, schedule=["ticket"], mask1=["reinit"], round=[2])]
    table = lt.run(runs)
    start, final, _ = run_store.weights(runs[0])
    for run in runs:
        row = table[(table["round"] == run.round) & (table["schedule"] == run.canonical.schedule)]
        if run.round == 0:
            assert row[["distance_kept", "distance_pruned"]].isna().all(axis=None)
            continue
        for name, sign in (("distance_kept", True), ("distance_pruned", False)):
            parts = zip(lt.NETWORKS["fc"].layers, start, final, run_store.mask(run))
            by_hand = [(f - w).abs()[m == sign].mean() / layer.glorot_std for layer, w, f, m in parts]
            assert row[name].item() == pytest.approx(sum(by_hand).item() / 3, rel=1e-5)
    moved = table[(table["criterion"] == "movement") & (table["round"] == 1)]
    assert (moved["distance_kept"] > 2 * moved["distance_pruned"]).all()  # by that criterion's very definition


def test_a_frozen_weight_stays_through_all_rounds(store):
    """Mask-0 action `init`: every pruned weight is at its first value in every later round."""
    s = lt.settings("smoke", rounds=3, stride=3, iterations=6)
    last = lt.sweep(s, mask0=["init"])[-1]
    lt.run([last])
    start, final, _ = run_store.weights(last)
    for w, f, m, w_0 in zip(start, final, run_store.mask(last), lt.networks.initial_weights("fc", 0)):
        assert torch.equal(w, w_0)
        assert torch.equal(f[~m], w_0[~m])
        assert not torch.equal(f[m], w_0[m])


def test_found_supermasks_are_untrained_weights_under_the_mask(store):
    from lt_utils import data
    from lt_utils.training import evaluate

    s = lt.settings("smoke", iterations=40, levels=[0, 5], precision="fp32")
    runs = lt.sweep(s, kind="found", mask1=["rewind", "constant_same_sign"], criterion=["large_final"])
    table = lt.run(runs)
    w_0 = lt.networks.initial_weights("fc", 0)
    for run in runs:
        _, masks = starting_point(run)
        kept = [235_200, 30_000, 1_000] if run.round == 0 else [77_071, 9_831, 591]  # n - floor((1 - rate^5) n)
        assert [int(m.sum()) for m in masks] == kept
        values = [w if run.mask1 == "rewind" else w.sign() * w.std() for w in w_0]
        masked = [(w * m).unsqueeze(0) for w, m in zip(values, masks)]
        _, accuracy = evaluate("fc", masked, [w.new_zeros(w.shape[:2]) for w in masked], data.load("mnist").test)
        row = table[(table["mask1"] == run.mask1) & (table["round"] == run.round)]
        assert row["test_accuracy"].item() == pytest.approx(accuracy.item(), abs=0.02)


def test_a_measurement_that_needs_curves_trains_what_a_committed_table_has(store, monkeypatch):
    from bench.common import curves
    from lt_utils import store as kept

    runs = lt.sweep(lt.settings("smoke", rounds=1, iterations=4, eval_every=2, precision="fp32"), round=[0])
    monkeypatch.setattr(kept, "_committed", lambda *_: {run.key: {"metrics": {"test_accuracy": 1.0}} for run in runs})
    monkeypatch.delenv("FRESH", raising=False)
    assert not lottery.missing(runs)
    assert [[at for at, *_ in curve] for curve in curves(runs)] == [[2, 4]]
