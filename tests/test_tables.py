"""Tables: one format, a schema on the way in and out, and committed rows that count as done."""

import json
import math
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

import lt_utils as lt
from lt_utils import speed, tables
from lt_utils import store as run_store
from lt_utils.runs import Run


@pytest.fixture
def table(store, tiny):
    return lt.run(lt.sweep(tiny, round=[0, 1]))


def test_what_is_written_is_read_again(table, tmp_path):
    tables.write(tmp_path / "x.csv", table)
    again = tables.read(tmp_path / "x.csv")
    numbers = list(table.select_dtypes("number"))
    assert again["key"].tolist() == table["key"].tolist()
    pd.testing.assert_frame_equal(again[numbers], table[numbers], check_exact=True, check_dtype=False)
    before = (tmp_path / "x.csv").read_bytes()
    tables.write(tmp_path / "x.csv", again)
    assert (tmp_path / "x.csv").read_bytes() == before


def test_a_table_of_runs_is_kept_as_a_file_per_network_and_of_its_own_networks_alone(table, tmp_path):
    table = table.assign(commit="0123456789ab")  # outside a repository there is none
    both = pd.concat([table.assign(network="conv2"), table], ignore_index=True)
    tables.write(tmp_path / "x.csv", both)  # as an earlier version kept it
    pd.testing.assert_frame_equal(tables.kept(tmp_path, "x"), both, check_exact=False, check_dtype=False)
    tables.keep(tmp_path, "x_claims", pd.DataFrame({"network": ["fc", "conv2"], "difference": 1.0}))
    tables.keep(tmp_path, "x", both)
    names = {"x_fc.csv", "x_conv2.csv", "x_claims.csv"}
    assert {path.name for path in tmp_path.glob("*.csv")} == names
    pd.testing.assert_frame_equal(tables.kept(tmp_path, "x"), both, check_exact=False, check_dtype=False)
    deeper = both.assign(layer_3_remaining=both["weights_remaining"].where(both["network"] == "conv2"))
    tables.keep(tmp_path, "x", deeper)
    assert "layer_3_remaining" not in tables.read(tmp_path / "x_fc.csv"), "it has three layers"
    pd.testing.assert_frame_equal(tables.kept(tmp_path, "x"), deeper, check_exact=False, check_dtype=False)
    tables.keep(tmp_path, "x", table)
    assert {path.name for path in tmp_path.glob("*.csv")} == names - {"x_conv2.csv"}
    assert set(tables.kept(tmp_path, "x")["network"]) == {"fc"}
    with pytest.raises(tables.TableError, match="no table y: execute its notebook first"):
        tables.kept(tmp_path, "y")


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("test_accuracy", 123.0),
        ("criterion", "large_finl"),
        ("seed", -1),
        ("key", "xyz"),
        ("kind", None),
        ("iterations", 0),
    ],
)
def test_a_table_that_cannot_be_is_neither_written_nor_read(table, tmp_path, column, value):
    wrong = table.copy()
    wrong[column] = wrong[column].astype(object)
    wrong.loc[0, column] = value
    with pytest.raises(tables.TableError, match=f"{column}.*restore it with git"):
        tables.write(tmp_path / "x.csv", wrong)
    wrong.to_csv(tmp_path / "y.csv", index=False)
    with pytest.raises(tables.TableError, match=f"{column}.*restore it with git"):
        tables.read(tmp_path / "y.csv")


def test_a_truncated_table_is_refused(table, tmp_path):
    tables.write(tmp_path / "x.csv", table)
    text = (tmp_path / "x.csv").read_text()
    (tmp_path / "x.csv").write_text(text[: len(text) - 40])
    with pytest.raises(tables.TableError, match="damaged"):
        tables.read(tmp_path / "x.csv")


def test_committed_rows_count_as_done_unless_fresh(table, tiny, tmp_path, monkeypatch):
    (tmp_path / "results" / "paper").mkdir(parents=True)
    tables.write(tmp_path / "results" / "paper" / "01_x.csv", table)
    monkeypatch.setattr(run_store, "ROOT", tmp_path)
    monkeypatch.setenv("LT_STORE", str(tmp_path / "another"))
    runs = lt.sweep(tiny, round=[0, 1])
    again = lt.run(runs)
    assert not (tmp_path / "another").exists()  # nothing was trained
    assert again["validation_loss"].tolist() == table["validation_loss"].tolist()
    assert again["test_accuracy"].tolist() == table["test_accuracy"].tolist()
    assert again["seconds"].tolist() == pytest.approx(table["seconds"].tolist())
    further = lt.sweep(tiny)  # one round more: what it builds on is trained again, for its weights
    assert len(lt.execute(further)) == 0
    assert (tmp_path / "another").exists()
    monkeypatch.setenv("FRESH", "1")
    monkeypatch.setenv("LT_STORE", str(tmp_path / "third"))
    lt.run(runs)
    assert len(list((tmp_path / "third").glob("??/*/run.json"))) == 4


def test_of_two_committed_rows_of_a_run_that_of_the_notebook_being_executed_counts(table, tiny, tmp_path, monkeypatch):
    for name, shift in (("overnight/01_x", 0.0), ("overnight/02_y", 2.0), ("paper/01_x", 1.0)):
        rows = table.assign(test_accuracy=table["test_accuracy"] - shift)
        (tmp_path / "results" / name).parent.mkdir(parents=True, exist_ok=True)
        tables.write(tmp_path / "results" / f"{name}.csv", rows)
    monkeypatch.setattr(run_store, "ROOT", tmp_path)
    monkeypatch.setenv("LT_STORE", str(tmp_path / "another"))
    for name, shift in (("overnight/01_x", 0.0), ("overnight/02_y", 2.0), ("paper/02_y", 1.0), ("evening/01_x", 1.0)):
        monkeypatch.setenv("LT_NOTEBOOK", name)
        found = lt.run(lt.sweep(tiny, round=[0, 1]))["test_accuracy"]
        assert found.tolist() == pytest.approx((table["test_accuracy"] - shift).tolist(), rel=1e-6)


def test_a_supermask_is_exported_where_only_its_row_is_committed(store, tmp_path, monkeypatch):
    """As in a fresh clone: the committed file stays if it has the row's accuracy; else the dense network is trained."""
    s = lt.settings("smoke", iterations=20, eval_every=10, levels=[5], precision="fp32", criteria=["large_final"])
    table = lt.run(lt.sweep(s, kind="found", mask1=["rewind"]))
    first = lt.export(table, s)
    file = next((tmp_path / "results").rglob("supermask_fc.safetensors"))

    def exported(table, place):
        monkeypatch.setenv("LT_STORE", str(tmp_path / place))
        return lt.export(table, s)

    assert exported(table, "second").equals(first)
    assert not (tmp_path / "second").exists()  # nothing was trained
    file.write_bytes(file.read_bytes()[:-1])
    assert exported(table, "third").equals(first)
    another = table.assign(test_accuracy=table["test_accuracy"] + 5)  # as if the row were another machine's
    assert exported(another, "fourth")["accuracy when loaded"].equals(first["accuracy when loaded"])
    assert all((tmp_path / place).exists() for place in ("third", "fourth"))
    monkeypatch.setenv("LT_DRAW_ONLY", "1")
    assert exported(another, "fifth")["accuracy when loaded"].equals(first["accuracy when loaded"])
    file.unlink()
    last = exported(table, "sixth")
    assert last["accuracy in the table"].equals(first["accuracy in the table"])
    assert last[["file (kB)", "accuracy when loaded"]].isna().all(axis=None)


def test_a_table_that_cannot_be_written_names_its_own_folder(table, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(run_store.StoreError, match=r"file/results can't be written.*LT_RESULTS"):
        tables.write(tmp_path / "file" / "results" / "x.csv", table)


def test_accuracies_have_a_column_per_round_and_a_row_for_what_was_pruned():
    rounds = {"iterative": (100.0, 1.2), "one_shot": (100.0, 1.19), "ticket": (100.0,)}
    table = pd.DataFrame(
        {
            "network": "fc",
            "seed": seed,
            "schedule": name,
            "round": r,
            "weights_remaining": left,
            "test_accuracy": 90.0 - 10 * r + seed,
        }
        for name, percents in rounds.items()
        for r, left in enumerate(percents)
        for seed in (0, 1)
    )
    wide = lt.accuracies(table, "schedule")
    assert list(wide.columns) == [100.0, 1.2]
    assert wide.loc[("fc", "one_shot")].tolist() == [90.5, 80.5]
    assert ("fc", "ticket") not in wide.index, "it has the dense network alone"
    left = table["weights_remaining"].replace({1.2: 2.4, 1.19: 2.39})
    other = table.assign(network="conv2", weights_remaining=left, test_accuracy=table["test_accuracy"] - 9)
    other.loc[(other["schedule"] == "one_shot") & (other["round"] == 1), "test_accuracy"] += 5
    both = lt.accuracies(pd.concat([other, table]), "schedule")
    assert list(both.columns) == [100.0, 2.4, 1.2]
    assert list(both.index) == [
        ("fc", "iterative"),
        ("fc", "one_shot"),
        ("conv2", "one_shot"),
        ("conv2", "iterative"),
    ], "the best first, per network"
    dense = lt.accuracies(table[table["round"] == 0], "schedule")
    assert len(dense) == 3, "nothing is pruned: every row is the dense network's"


def test_of_a_sweep_cut_short_is_shown_what_is_whole_and_has_networks_of_its_own():
    """Of FC two seeds have both rounds; the third has one, one-shot the first, which is the ticket's, and random masks
    and Conv2 have the dense network alone."""
    rounds = (3, 3, 2)
    fc = [("fc", seed, "iterative", r, f"{seed} {r}") for seed in range(3) for r in range(rounds[seed])]
    fc += [("fc", seed, "one_shot", r, f"{seed} {r}") for seed in range(3) for r in range(2)]
    fc += [("fc", seed, "ticket", 0, f"{seed} 0") for seed in range(3)]
    dense = [("conv2", seed, "iterative", 0, f"conv2 {seed}") for seed in range(3)]
    table = pd.DataFrame(fc + dense, columns=["network", "seed", "schedule", "round", "key"])
    left = tables.begun(table, ["schedule"])
    assert set(left["network"]) == {"fc"} and set(left["schedule"]) == {"iterative"}
    assert left.groupby("seed")["round"].apply(list).to_dict() == {0: [0, 1, 2], 1: [0, 1, 2]}
    nothing_pruned = table[table["round"] == 0]
    assert tables.begun(nothing_pruned, ["schedule"]).equals(nothing_pruned)


def test_tables_are_shown_without_a_word_where_there_is_no_number():
    wide = pd.DataFrame({100.0: [97.14, 69.96], 3.517: [None, 51.0]}, index=pd.Index(["fc", "conv2"], name="network"))
    shown = lt.full(wide, digits=1).to_html()
    assert "nan" not in shown.lower()
    assert all(f">{cell}</t" in shown for cell in ("97.1", "51.0", "100.00", "3.52", "fc", "conv2"))
    assert ">0</th>" not in lt.full(wide.reset_index()).to_html(), "numbers of rows say nothing"
    assert "inf" not in lt.full(wide.assign(low=-math.inf, high=math.inf)).to_html(), "one seed has no interval"


def test_networks_of_other_densities_are_shown_each_with_its_own():
    names = pd.MultiIndex.from_tuples([("fc", "zero"), ("fc", "init"), ("conv2", "zero")], names=["network", "mask0"])
    wide = pd.DataFrame({100.0: [97.1, 97.1, 57.3], 26.2: [97.5, None, None], 26.47: [None, None, 58.1]}, index=names)
    fc, conv2 = lt.per_network(wide).data.split("</table>")[:2]
    assert "26.20" in fc and "97.5" in fc and "26.47" not in fc and "conv2" not in fc
    assert "26.47" in conv2 and "58.1" in conv2 and "26.20" not in conv2


def test_a_measurement_of_some_networks_leaves_those_of_others_and_of_other_machines(tmp_path):
    from bench.common import keep

    def rows(machine, **milliseconds):
        return pd.DataFrame({"network": list(milliseconds), "ms": list(milliseconds.values()), "machine": machine})

    path, by = tmp_path / "cpu.csv", ["machine", "network"]
    keep(path, rows("a", fc=1, conv2=2, conv6=3), by)
    keep(path, rows("a", conv2=4), by)
    keep(path, rows("b", conv6=5), by)
    found = tables.read(path).set_index(by)["ms"]
    assert found.to_dict() == {("a", "fc"): 1, ("a", "conv2"): 4, ("a", "conv6"): 3, ("b", "conv6"): 5}


def test_the_pages_show_speeds_by_machine_the_last_first_in_the_order_of_the_networks(tmp_path, monkeypatch):
    from lt_utils import readme

    monkeypatch.setattr(readme, "results_folder", lambda _: tmp_path)
    loops = {"idiomatic loop": 8.0, "in-memory loop": 4.0, "stack of 1, fp32": 2.0, "stack of 4, fp32": 1.0}
    shares = {"images/s": 60_000, "floor ms": 0.5, "share of FLOP/s": 0.5}
    measured = [
        {"machine": m, "network": n, "kind": k, "loop": name, "ms per network-step": ms, "x idiomatic": 8 / ms} | shares
        for m in ("one", "other")
        for n, k in (("conv2", "train"), ("fc", "learned"), ("fc", "train"))
        for name, ms in loops.items()
    ]
    pd.DataFrame(measured).to_csv(tmp_path / "cpu.csv")
    machines = pd.DataFrame({"machine": ["one", "other"], "quantity": "fp32 G/s", "value": [200, 100]})
    machines.to_csv(tmp_path / "cpu_machine.csv")
    text = readme.speeds()
    assert text.startswith("### other\n\nfp32 G/s 100.\n")
    assert text.index("### other") < text.index("### one\n\nfp32 G/s 200.\n")
    assert readme.speed().startswith("other:") and "one" not in readme.speed()
    assert text.count("| fc, train | 8 | 4 | 1 (stack of 4, fp32) | 8.0 | 60,000 | 0.5 | 50 % |") == 2
    rows = [line.split(" | ")[0] for line in text.splitlines() if line.startswith(("| fc", "| conv"))]
    assert rows == ["| fc, train", "| fc, learned", "| conv2, train"] * 2
    assert "time goes" not in text  # not profiled
    parts = {"precision": "fp32", "stack": 4, "part": ["matrix products", "Python"], "share": [0.9, 0.1]}
    pd.DataFrame({"machine": "other", "network": "fc", "kind": "train"} | parts).to_csv(tmp_path / "profile_cpu.csv")
    profiled = readme.speeds().split("time goes")
    assert len(profiled) == 2 and profiled[0].startswith("### other") and "one" not in profiled[0]
    assert "| fc, train (stack of 4, fp32) | 90 | 10 |" in profiled[1]


def test_treatments_are_compared_seed_by_seed_after_trainings_of_one_length(store, monkeypatch):
    from bench import training_lengths as lengths

    asked = ["movement", "variant_1"]
    for seed in ("0", "2"):
        given = ["--seeds", seed, "--iterations", "8", "--precision", "fp32", "--treatments", *asked]
        monkeypatch.setattr("sys.argv", ["", *given])
        lengths.main()
    assert len(list(store.glob("??/*/run.json"))) == 2 * 4  # the dense network, the ticket, and what was asked for
    found = lengths.compare("fc", seeds=[0, 2], iterations=8, precision="fp32", treatments=asked)
    seeds = found.groupby(["treatment", "beside"])["seed"].apply(list)
    assert seeds.to_dict() == {(treatment, lengths.TICKET): [0, 2] for treatment in asked}
    assert (found["accuracy"] - found["accuracy beside"] == found["difference"]).all()
    assert found["weights_remaining"].between(6, 8).all()
    beside = found.pivot(index="seed", columns="treatment", values="accuracy beside")
    assert (beside["movement"] == beside["variant_1"]).all()  # one training, compared twice
    assert found["accuracy"].nunique() > 2
    kept = tables.read(store.parent / "results" / "bench" / "training_lengths.csv")  # the second seed joined the first
    in_order = [rows.sort_values([*lengths.BY, "seed"], ignore_index=True) for rows in (kept, tables.rounded(found))]
    pd.testing.assert_frame_equal(*in_order)
    assert (store.parent / "figures" / "bench" / "training_lengths.png").exists()


def test_noise_turns_the_signs_that_it_turns_when_it_is_drawn(store):
    from bench import noise_signs
    from bench.training_lengths import scale_of
    from lt_utils.networks import NETWORKS, initial_weights

    few = noise_signs.measure(lt.settings("smoke", seeds=[1], precision="fp32"))
    assert few["noise"].tolist() == list(noise_signs.NOISE) * lt.settings("smoke").scale.rounds
    assert (few["seeds"] == 1).all()
    weights = initial_weights("fc", 1)
    large = [w.abs() > layer.glorot_std for w, layer in zip(weights, NETWORKS["fc"].layers)]
    source = torch.Generator().manual_seed(0)
    for noise in noise_signs.NOISE:
        drawn = [
            (w + noise * layer.glorot_std * torch.randn(w.shape, generator=source)).sign() != w.sign()
            for w, layer in zip(weights, NETWORKS["fc"].layers)
        ]
        share = 100 * torch.cat([d[m] for d, m in zip(drawn, large)]).float().mean().item()
        assert noise_signs.turned("fc", 1, noise, large) == pytest.approx(share, abs=0.5)
        assert share < few.loc[few["noise"] == noise, "turned_any_percent"].iloc[0] < 50
    once = noise_signs.measure(scale_of(8, "fc", seeds=[1], precision="fp32"))
    assert once[["iterations", "round"]].drop_duplicates().values.tolist() == [[8, 12]]
    assert once["turned_any_percent"].tolist() == pytest.approx(few["turned_any_percent"].tolist()[: len(once)])


def test_criteria_are_of_one_mind_about_the_large_weights_while_these_have_hardly_moved(store, monkeypatch):
    from bench import mask_overlap

    monkeypatch.setattr("sys.argv", ["", "--network", "fc", "--iterations", "8", "--seeds", "0", "1"])
    mask_overlap.main()
    found = tables.read(store.parent / "results" / "bench" / "mask_overlap.csv")
    assert found[["iterations", "seeds"]].drop_duplicates().values.tolist() == [[8, 2]]
    few = found.query("round == 12").set_index("criterion")
    assert few["kept_percent"].tolist() == pytest.approx([100 * 0.8**12] * len(few), abs=0.1)
    assert few["shared_percent"].between(0, 100).all()
    assert few.loc["large_init", "shared_percent"] > 50 > few.loc["movement", "shared_percent"]
    assert (few["start_kept_std"] > 1.5 * few["start_all_std"]).all() and (few["moved_std"] < 0.5).all()


def test_small_weights_pass_small_gradients_on_which_the_size_of_adams_epsilon_decides_over(store, monkeypatch):
    from bench import first_gradient
    from lt_utils import lottery

    few = ["--criteria", "small_init", "large_init", "--rounds", "0", "12"]
    monkeypatch.setattr(first_gradient, "EPSILONS", (1e-8, 1e8))
    for training in ([], ["--iterations", "6"]):
        given = ["--network", "fc", "--seeds", "2", "--precision", "fp32"]
        monkeypatch.setattr("sys.argv", ["", *given, *few, *training])
        first_gradient.main()
    found = tables.read(store.parent / "results" / "bench" / "first_gradient.csv").set_index(["round", "criterion"])
    assert (found["seeds"] == 2).all() and found["above_epsilon_percent"].between(1, 99).all()
    assert found.loc[12, "kept_percent"].tolist() == pytest.approx([100 * 0.8**12] * 2, abs=0.1)
    for size in ("logit_std", "median_gradient"):
        assert found.loc[(12, "small_init"), size] < 0.1 * found.loc[(12, "large_init"), size]
        assert found.loc[(0, "small_init"), size] == found.loc[(0, "large_init"), size], "not pruned"
    after = tables.read(store.parent / "results" / "bench" / "adam_epsilon.csv")
    reached = after.set_index(["round", "criterion", "seed", "epsilon"])["validation_accuracy"].unstack()
    dense = [run for run in lt.sweep(lt.settings("evening", networks=["fc"], seeds=2, iterations=6, eval_every=6,
                                                 precision="fp32")) if run.round == 0]  # fmt: skip
    lottery.execute(dense)
    ordinary = [run_store.metrics(run)["history"][-1][2] for run in dense]
    assert reached.loc[(0, "large_init"), 1e-8].tolist() == pytest.approx(ordinary, abs=1e-3)
    assert reached.loc[(0, "large_init"), 1e8].max() < 30 < min(ordinary), "an epsilon far above all gradients"


def test_the_best_mask_is_read_off_coarser_and_coarser_grids_of_densities():
    from bench.mask_densities import EACH, best_of

    curve = {0: 10.0, 1: 70.0, 2: 50.0, 4: 30.0, 5: 90.0, 6: 20.0}  # k: test accuracy
    rows = {"round": list(curve), "test_accuracy": list(curve.values()), "weights_remaining": [100 - k for k in curve]}
    same = dict(zip(EACH, ("fc", 8, "fp32", "large_final", "rewind")))
    one = pd.DataFrame(rows).assign(**same, seed=0)
    found = best_of(pd.concat([one, one.assign(seed=1, test_accuracy=one["test_accuracy"] / 2)], ignore_index=True))
    assert found["seed"].tolist() == [0, 1]
    assert found.iloc[0, -5:].tolist() == [90, 50, 30, 20, 95]
    assert found.iloc[1, -5:].tolist() == [45, 25, 15, 10, 95]


def test_masks_are_followed_over_the_epochs_and_tested_at_the_end(store):
    from bench import mask_learning as learning

    few = {"seeds": 2, "weights": ["constant_same_sign"], "dwr": [True]}
    found = learning.learn("fc", rates=[1.0, 100.0], epochs=2, **few)
    assert found[["rate", "epoch"]].values.tolist() == [[1, 1], [1, 2], [100, 1], [100, 2]]
    last = found["epoch"] == 2
    assert (found["test_accuracy"].notna() == last).all() and found["validation_accuracy"].between(0, 100).all()
    assert found[last]["test_accuracy"].between(found[last]["low"], found[last]["high"]).all()
    assert found.set_index(["rate", "epoch"])["validation_accuracy"].idxmax() == (100, 2)
    learning.draw(found)
    assert (store.parent / "figures" / "bench" / "mask_learning.png").exists()


def test_a_profile_knows_the_operations_of_a_step():
    from bench.profile import PARTS, spent_on_cpu

    def products():
        a = torch.rand(400, 400)
        while True:
            a @ a
            yield 1

    found = spent_on_cpu(products())
    assert list(found) == list(PARTS) and max(found, key=found.get) == "matrix products"
    learned = spent_on_cpu(speed.stepper(Run(kind="learned", batch=250, iterations=1), 4, "cpu"))
    assert min(learned.values()) > 0


def test_each_way_of_waiting_has_its_own_process_and_a_busy_one_beside_it_ends(monkeypatch):
    from bench import contention

    asked, others, popen = [], [], contention.subprocess.Popen

    def started(*words):
        others.append(popen(*words))
        return others[-1]

    def run(words, env, **named):
        """As if every busy process doubled a step."""
        asked.append({name: value for name, value in env.items() if name.startswith("OMP_")})
        times = 1 + sum(other.poll() is None for other in others)
        return SimpleNamespace(stdout=json.dumps([1.0 * times, 3.0 * times]).encode())

    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setattr(contention.subprocess, "Popen", started)
    monkeypatch.setattr(contention.subprocess, "run", run)
    found = contention.table([("fc", "train"), ("fc", "learned")], "cpu", repeats=1)
    assert asked == [*contention.WAYS.values()] * len(contention.BUSY), "nothing of the user's own"
    assert (found["x default alone"] == 1 + found["busy processes"]).all()
    assert len(others) == len(contention.WAYS) and all(other.poll() is not None for other in others)
