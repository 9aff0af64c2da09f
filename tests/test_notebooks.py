"""The notebooks: clean sources, declared parameters, and all of them executed at `smoke` by the driver."""

import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import PIL.Image
import pytest

import lt_utils as lt
from lt_utils import notebook, plan, plots, store, tables
from lt_utils.claims import CLAIMS
from lt_utils.data import ROOT
from notebooks.parameters import values

NAMES = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))


def source(name):
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)


def outputs(path):
    return [o for cell in nbformat.read(path, as_version=4).cells for o in cell.get("outputs", [])]


def executed_in(label, root=ROOT):
    return sorted((root / "results" / label).glob("*.ipynb"))


def test_there_is_one_notebook_per_section():
    assert [name[:2] for name in NAMES] == [f"0{i}" for i in range(len(NAMES))]
    assert [*CLAIMS, "06_scorecard"] == NAMES
    assert plan.names() == list(CLAIMS)


@pytest.mark.parametrize("name", NAMES)
def test_source_notebooks_carry_no_outputs_and_declare_their_parameters(name):
    cells = source(name).cells
    nbformat.validate(source(name))
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
    tagged = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    assert all(word in tagged[0].source for word in ("profile", "networks", "seeds"))


@pytest.mark.parametrize("name", NAMES)
def test_notebooks_tell_a_story_in_small_cells(name):
    cells = source(name).cells
    code = [cell for cell in cells if cell.cell_type == "code" and not cell.metadata.get("tags")]
    text = [cell for cell in cells if cell.cell_type == "markdown"]
    assert all(len(cell.source.splitlines()) <= 8 for cell in code)
    assert len(text) >= len(code) - 2
    assert all(word in text[0].source for word in ("**Question.**", "claims"))


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """All notebooks executed at smoke, each by the command that the Makefile calls."""
    folder = tmp_path_factory.mktemp("smoke")
    environment = os.environ | {
        "LT_RESULTS": str(folder / "results"),
        "LT_FIGURES": str(folder / "figures"),
        "LT_STORE": str(folder / "store"),
        "PYTHONPATH": str(ROOT),
    }
    for name in NAMES:
        done = subprocess.run(
            [sys.executable, "notebooks/execute.py", name, "--profile", "smoke"],
            env=environment,
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        assert done.returncode == 0, done.stderr[-2000:]
    return folder, environment


def test_executed_notebooks_tables_and_figures_appear(executed):
    folder, _ = executed
    results = {path.name for path in (folder / "results" / "smoke").iterdir()}
    assert {f"{name}.ipynb" for name in NAMES} | {f"{name}_claims.csv" for name in CLAIMS} <= results
    assert {f"{name}_fc.csv" for name in CLAIMS} | {"01_criterion_regions.csv"} <= results
    assert all(tables.files(folder / "results" / "smoke", name) for name in plots.FIGURES)
    assert not [name for name in results if "part" in name or "failed" in name]
    for name in plots.FIGURES:
        for suffix in ("png", "svg"):
            assert (folder / "figures" / "smoke" / f"{name}.{suffix}").stat().st_size > 10_000


def test_executed_notebooks_show_their_figure_and_no_timings(executed):
    for name in NAMES:
        path = executed[0] / "results" / "smoke" / f"{name}.ipynb"
        assert not any(word in path.read_text() for word in ('"start_time"', '"iopub.status.busy"'))
        assert any("image/png" in o.get("data", {}) for o in outputs(path))


def test_committed_files_are_under_a_megabyte():
    folders = [ROOT / place / name for place in ("results", "figures") for name in ("reference", *store.COMMITTED)]
    sizes = {path: path.stat().st_size for folder in folders for path in folder.iterdir() if path.suffix != ".svg"}
    assert len(sizes) > 100
    assert [path for path, size in sizes.items() if size >= 1_000_000] == []


def test_notebooks_to_read_are_small_and_hold_neither_errors_nor_warnings(executed):
    committed = [path for name in ("reference", "evening", "overnight", "paper") for path in executed_in(name)]
    assert committed
    for path in [*executed_in("smoke", executed[0]), *committed]:
        assert path.stat().st_size < 1_000_000, path
        assert [o for o in outputs(path) if o.output_type == "error" or o.get("name") == "stderr"] == [], path


def test_a_notebook_executed_again_is_the_same_file(executed, tmp_path):
    folder, environment = executed
    name = "02_mask1_actions"
    command = [sys.executable, "notebooks/execute.py", name, "--profile", "smoke"]
    again = environment | {"LT_RESULTS": str(tmp_path)}
    subprocess.run(command, env=again, check=True, capture_output=True, cwd=ROOT)
    first, second = (place / "smoke" / f"{name}.ipynb" for place in (folder / "results", tmp_path))
    assert first.read_bytes() == second.read_bytes()


def test_a_committed_notebook_is_redrawn_from_its_table_without_training(tmp_path):
    """Its text to the last byte, whatever this machine would have found; the reference's, in another folder than its
    profile's."""
    name = "02_mask1_actions"
    shutil.copytree(ROOT / "results" / "reference", tmp_path / "reference")
    own = {"LT_RESULTS": str(tmp_path), "LT_FIGURES": str(tmp_path / "figures"), "PYTHONPATH": str(ROOT)}
    (tmp_path / "reference" / f"{name}.ipynb").write_text("")
    command = [sys.executable, "notebooks/redraw.py", "reference", "--only", name]
    subprocess.run(command, env=os.environ | own, check=True, capture_output=True, cwd=ROOT)

    def without_pictures(folder):
        return re.sub(r'"image/png": ".*"', "", (folder / "reference" / f"{name}.ipynb").read_text())

    assert without_pictures(tmp_path) == without_pictures(ROOT / "results")
    assert (tmp_path / "figures" / "reference" / f"{name}.png").exists()


def test_tables_hold_every_run_once(executed):
    table = pd.read_csv(executed[0] / "results" / "smoke" / "01_mask_criteria_fc.csv")
    assert len(table) == 13 * 3
    assert not table.duplicated(["network", "seed", "criterion", "round"]).any()
    assert table["test_accuracy"].between(5, 100).all()


def test_figures_are_redrawn_from_tables_byte_for_byte(executed):
    folder, environment = executed
    drawn = {path.name: path.read_bytes() for path in (folder / "figures" / "smoke").iterdir()}
    redraw = [sys.executable, "-m", "lt_utils", "figures", "--profile", "smoke"]
    subprocess.run(redraw, env=environment | {"LT_STORE": "/nowhere"}, check=True, capture_output=True, cwd=ROOT)
    for path in (folder / "figures" / "smoke").iterdir():
        assert path.read_bytes() == drawn[path.name], path.name


def test_every_figure_is_the_same_each_time_it_is_drawn():
    """From the reference tables, which have several seeds: no chance in jitter or layout."""
    for name, draw in plots.FIGURES.items():
        table = tables.kept(ROOT / "results" / "reference", name)
        drawn = []
        for _ in range(2):
            stream = io.BytesIO()
            figure = draw(table)
            figure.savefig(stream, format="png", dpi=50, metadata={"Software": None})
            plt.close(figure)
            drawn.append(stream.getvalue())
        assert drawn[0] == drawn[1], name


def test_the_summary_prints_every_claim_that_was_tested(executed):
    folder, environment = executed
    done = subprocess.run(
        [sys.executable, "-m", "lt_utils", "summary", "--profile", "smoke"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    judged = pd.concat(pd.read_csv(path) for path in (folder / "results" / "smoke").glob("*_claims.csv"))
    assert set(judged["claim"]) == {one.statement for each in CLAIMS.values() for one in each if "fc" in one.networks}
    tested = judged.loc[judged["seeds"] > 0, "claim"]
    assert len(tested) >= 0.9 * len(judged)
    lines = done.stdout.splitlines()
    printed = {claim for claim in judged["claim"] if any(line.rstrip().endswith(f" {claim}") for line in lines)}
    assert printed == set(tested)
    assert str(folder / "figures" / "smoke") in done.stdout


def test_a_misspelt_parameter_stops_with_the_right_ones(store):
    done = subprocess.run(
        [sys.executable, "notebooks/execute.py", "01_mask_criteria", "-p", "sedes=5"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 1
    assert "criteria, iterations, networks, precision, profile, rounds, seeds" in done.stderr


def test_parameters_are_python_in_any_spacing_or_text():
    given = ["networks=['fc', 'conv2']  seeds=[0, 1]", "rounds=None", "precision=bf16 criteria=[movement]"]
    assert values(given) == {
        "networks": ["fc", "conv2"], "seeds": [0, 1], "rounds": None, "precision": "bf16", "criteria": "[movement]",
    }  # fmt: skip
    with pytest.raises(SystemExit, match="'seeds' gives no value: write NAME=VALUE"):
        values(["rounds=3", "seeds"])


def test_the_readmes_command_with_a_list_asks_for_what_it_says(store):
    """It passes through make and the shell on its way; `cost` reads it as `reproduce` does, and trains nothing."""
    said = re.findall(r'`make reproduce (ONLY=\S+ PARAMS=".*\[.*?")`', (ROOT / "README.md").read_text())
    only, given = shlex.split(said[0])
    command = ["make", "cost", f"PYTHON={sys.executable}", only, given]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    wanted = values([given.removeprefix("PARAMS=")])
    runs = plan.notebook_runs(only.removeprefix("ONLY="), "quick", wanted)
    assert {run.network for run in runs} == set(wanted["networks"])
    assert f"Left: {len({run.key for run in runs})}, " in done.stdout


OTHER = {
    "networks": ["conv2"], "seeds": 4, "rounds": 7, "iterations": 7, "precision": "fp32", "criteria": ["random"],
    "levels": [3], "mask_epochs": 7, "mask_rate": 7.0,
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_parameter_that_is_given_never_writes_over_the_profiles_own_results(name):
    for parameter in set(plan.declared(name)) - {"profile"}:
        action = {"02_mask1_actions": "constant"}.get(name, "init")
        own = plan.declared(name) | {parameter: OTHER.get(parameter, [action]), "lt": lt}
        exec(plan._cell(name, "settings"), own)
        assert own["settings"].label == "quick-custom", parameter


def test_a_notebook_takes_the_parameters_that_it_has(store, tmp_path):
    """Of these 02 has rounds, and 04, which has not, still writes to where they all write."""
    words = ["02_mask1_actions", "04_supermasks"]
    command = [sys.executable, "notebooks/execute.py", words[1], "--profile", "smoke", "-p", "rounds=1 levels=[8]"]
    done = subprocess.run([*command, "--among", *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    (folder,) = (tmp_path / "results").iterdir()
    assert folder.name == "smoke-custom"
    assert set(pd.read_csv(folder / "04_supermasks_fc.csv")["round"]) == {8}
    runs = plan.everything("smoke", words, ["rounds=1 levels=[8]"])
    assert {run.round for run in runs if run.kind == "train"} == {0, 1}
    assert {run.round for run in runs if run.kind == "found"} == {8}
    with pytest.raises(ValueError, match=r"'round'.*levels, networks, precision, profile, rounds, seeds"):
        plan.everything("smoke", words, ["round=1"])


def test_the_plan_reads_the_runs_that_the_notebooks_do(executed):
    for name in CLAIMS:
        table = tables.kept(executed[0] / "results" / "smoke", name)
        assert {run.key for run in plan.notebook_runs(name, "smoke")} == set(table["key"])


def test_the_most_valuable_runs_come_first():
    runs = plan.everything("paper", [], ["seeds=1"])
    order = list(dict.fromkeys((run.network == "fc", run.kind) for run in runs))
    assert order == [(True, "found"), (True, "train"), (True, "learned"), (False, "found"), (False, "learned"),
                     (False, "train")]  # fmt: skip
    trained = [run.network for run in runs if run.kind == "train" and run.network != "fc"]
    assert trained == sorted(trained)


@pytest.mark.parametrize(("words", "expected"), [("30m", 1800), ("90s", 90), ("1.5h", 5400)])
def test_a_budget_is_a_number_and_a_unit(words, expected):
    assert plan.seconds(words) == expected


@pytest.mark.parametrize("words", ["30", "m", "-5m", "0s", "1d"])
def test_a_budget_that_is_none_says_what_one_is(words):
    with pytest.raises(ValueError, match="for example 30m"):
        plan.seconds(words)


def test_make_with_a_budget_stops_in_time_draws_what_is_there_and_goes_on(tmp_path):
    """The first call has time for little, and says what is left; the next call ends the work."""
    environment = os.environ | {
        "LT_RESULTS": str(tmp_path / "results"),
        "LT_FIGURES": str(tmp_path / "figures"),
        "LT_STORE": str(tmp_path / "store"),
    }
    words = ["make", "reproduce", "PROFILE=smoke", f"PYTHON={sys.executable}", "ONLY=00_lottery_tickets"]
    command = [*words, "PARAMS=iterations=1500 seeds=1"]
    first = subprocess.run([*command, "BUDGET=3s"], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert first.returncode == 0, first.stderr[-2000:]
    assert "The same command goes on from there." in first.stdout
    table = tmp_path / "results" / "smoke-custom" / "00_lottery_tickets_fc.csv"
    some = len(pd.read_csv(table)) if table.exists() else 0  # a slow machine may have finished nothing
    second = subprocess.run([*command, "BUDGET=10m"], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert "all 14 trainings are done." in second.stdout
    assert some < len(pd.read_csv(table)) == 21


def test_a_saved_picture_shows_every_band_in_its_own_hue(tmp_path):
    """With fewer colours than it was drawn in: narrow translucent bands, in each other's way, are many of them."""
    figure, axes = plt.subplots(figsize=(7, 4))
    for i in range(18):
        x = [0, 10 + i]
        axes.fill_between(x, [i, i / 2], [i + 0.6, i / 2 + 0.4], color=plt.cm.tab20(i), alpha=0.25)
        axes.plot(x, [i + 0.3, i / 2 + 0.2], color=plt.cm.tab20(i), linewidth=0.8)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=130)
    notebook.save_png(figure, tmp_path / "x.png")
    plt.close(figure)
    saved, exact = (np.asarray(PIL.Image.open(one).convert("RGB")).astype(int) for one in (tmp_path / "x.png", drawn))
    assert abs(saved - exact).max() <= 32
    assert (saved[0, 0] == 255).all(), "white stays white"
    assert (tmp_path / "x.png").stat().st_size < len(drawn.getvalue()) * 0.7


def test_figures_have_a_panel_for_each_network(store):
    s = lt.settings(
        "smoke", networks=["fc", "conv2"], iterations=2, rounds=1, levels=[0, 8], test_images=100, precision="fp32",
        criteria=["large_final", "random"],
    )  # fmt: skip
    criteria = lt.run(lt.sweep(s, criterion=["large_final", "random"]))
    found = lt.run(lt.sweep(s, kind="found", mask1=["rewind", "constant_same_sign"]))
    for name, table in (("01_mask_criteria", criteria), ("04_supermasks", found), ("00_lottery_tickets", criteria)):
        titles = " ".join(axes.get_title() for axes in plots.FIGURES[name](table).axes)
        assert titles.index("FC") < titles.index("Conv2")
    earlier = criteria.assign(distance_kept=float("nan"), distance_pruned=float("nan"))  # a store of an earlier version
    shown = [axes.axison for axes in plots.FIGURES["00_lottery_tickets"](earlier).axes]
    assert shown == 2 * ([True] * 4 + [False] * 2), "neither noise nor distances are known"
    assert set(found["network"]) == {"fc", "conv2"}
    assert criteria["test_accuracy"].between(0, 100).all()


def test_a_legend_names_only_what_was_trained_on_its_network():
    """Where a sweep was cut short, variants without a pruned network have the dense one, which is that of all."""
    table = tables.kept(ROOT / "results" / "evening", "00_lottery_tickets")
    short = table[(table["network"] == "conv2") | (table["noise"] == 0) | (table["round"] == 0)]
    figure = plots.FIGURES["00_lottery_tickets"](short)
    named = [[text.get_text() for text in axes.get_legend().get_texts()] for axes in figure.axes[4::6]]
    shown = [sum(axes.axison for axes in figure.axes[i : i + 6]) for i in range(0, 18, 6)]
    plt.close(figure)
    assert [sum("sigma" in name for name in names) for names in named] == [3, 0, 0]
    assert shown == [6, 5, 5], "without noise, no panel of it: it would be the first again"
    alone = plots.FIGURES["00_lottery_tickets"](tables.with_variant(table).query("variant == @tables.VARIANTS[0]"))
    labels = [text.get_text() for text in alone.axes[0].get_legend().get_texts()]
    plt.close(alone)
    assert len(labels) == 2 and labels[0] == tables.VARIANTS[0], "a ticket and the dense network: no star to explain"


def test_a_line_looks_the_same_on_every_network_and_is_not_hidden_where_it_ends_early():
    """Also where a network's sweep was cut short, so that fewer lines are there, and one ends after a round."""
    table = tables.kept(ROOT / "results" / "evening", "02_mask1_actions").query("network in ('conv2', 'conv4')")
    some = table["mask1"].isin(["rewind", "constant_same_sign"]) | (table["mask1"] == "reinit") & (table["round"] <= 1)
    figure = plots.FIGURES["02_mask1_actions"](table[(table["network"] == "conv2") | some])
    figure.canvas.draw()
    whole, short = [
        {
            line.get_label(): (line.get_color(), line.get_marker(), line.get_linestyle())
            for line in axes.get_legend().get_lines()
        }
        for axes in figure.axes
    ]
    assert len(short) == len(whole) - 4 and short.items() - whole.items() == {
        (label, look) for label, look in short.items() if label.startswith("dense")
    }
    axes = figure.axes[1]
    ends = [line.get_xydata()[-1] for line in axes.get_lines() if len(line.get_xydata()) == 2]
    covered = axes.get_legend().get_window_extent()
    assert ends and not any(covered.contains(*axes.transData.transform(end)) for end in ends)
    plt.close(figure)


def test_a_criterion_looks_the_same_on_every_network_also_where_another_is_missing():
    table = tables.kept(ROOT / "results" / "evening", "04_supermasks").query("network in ('conv2', 'conv4')")
    missing = (table["network"] == "conv2") & (table["criterion"] == "large_final_same_sign")
    figure = plots.FIGURES["04_supermasks"](table[~missing])
    short, whole = [
        {line.get_label(): (line.get_color(), line.get_marker()) for line in axes.get_legend().get_lines()}
        for axes in figure.axes
        if axes.get_legend()
    ]
    plt.close(figure)
    assert len(short) == len(whole) - 1 and short.items() <= whole.items()


@pytest.mark.parametrize("label", ["evening", "reference"])
@pytest.mark.parametrize("name", ["00_lottery_tickets", "01_mask_criteria", "02_mask1_actions"])
def test_a_legend_lies_on_no_line_and_on_no_other_panel(label, name):
    figure = plots.FIGURES[name](tables.kept(ROOT / "results" / label, name))
    figure.canvas.draw()
    explained = [axes for axes in figure.axes if axes.get_legend()]
    assert explained
    for axes in explained:
        legend = axes.get_legend().get_window_extent()
        lines = [line.get_path().transformed(line.get_transform()) for line in axes.lines if len(line.get_xdata())]
        inside = legend.overlaps(axes.get_window_extent())
        assert not inside or not any(line.intersects_bbox(legend, filled=False) for line in lines)
        assert not any(legend.overlaps(other.get_window_extent()) for other in figure.axes if other is not axes)
        assert figure.bbox.containsx(legend.x1) and figure.bbox.containsy(legend.y0)
    plt.close(figure)


def test_a_network_of_which_the_baseline_alone_is_there_has_no_panel_beside_one_of_which_more_is():
    def titles(shown):
        figure = plots.FIGURES["03_mask0_actions"](shown)
        plt.close(figure)
        return [axes.get_title() for axes in figure.axes]

    table = tables.kept(ROOT / "results" / "evening", "03_mask0_actions").query("network in ('conv2', 'conv4')")
    assert titles(table) == ["Conv2", "Conv4"]
    assert titles(table.query("network == 'conv2' or mask0 == 'zero'")) == ["Conv2"]
    assert titles(table.query("mask0 == 'zero'")) == ["Conv2", "Conv4"]


@pytest.mark.parametrize("name", ["00_lottery_tickets", "01_mask_criteria", "02_mask1_actions", "03_mask0_actions"])
def test_a_sweep_cut_short_after_a_dense_network_is_drawn(name):
    table = tables.kept(ROOT / "results" / "evening", name)
    whole = plots.FIGURES[name](table)
    for short in (table[table["round"] == 0], table[(table["network"] == "conv2") | (table["round"] == 0)]):
        drawn = plots.FIGURES[name](short)
        assert drawn.axes[0].get_title() == whole.axes[0].get_title()
        plt.close(drawn)
    assert not any("Conv4" in axes.get_title() for axes in drawn.axes), "it has the dense network alone"
    assert any("Conv4" in axes.get_title() for axes in whole.axes)
    plt.close(whole)


def test_a_failed_notebook_fails_says_why_and_leaves_no_finished_copy(store, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    results = tmp_path / "results" / "smoke-custom"
    done = subprocess.run(
        [
            sys.executable,
            "notebooks/execute.py",
            "01_mask_criteria",
            "--profile",
            "smoke",
            "-p",
            "criteria=['large_finl']",
        ],
        env=environment,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "01_mask_criteria failed: ValueError: unknown" in last
    assert "large_final" in last
    assert str(results / "01_mask_criteria.failed.ipynb") in last
    assert [path.name for path in results.glob("*.ipynb")] == ["01_mask_criteria.failed.ipynb"]


def test_a_label_tells_changed_parameters_from_a_profile(store, tiny):
    path = notebook.results_folder(tiny.label) / "x.csv"
    tables.keep(path.parent, "x", pd.DataFrame({"a": [0.1 + 0.2]}))
    assert path.read_text() == "a\n0.3\n"
    assert json.dumps([p.name for p in path.parent.iterdir()]) == '["x.csv"]'
