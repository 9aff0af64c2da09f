"""The notebooks: clean sources, declared parameters, and all of them executed at `smoke` by the driver."""

import json
import os
import subprocess
import sys

import nbformat
import pandas as pd
import pytest

from lt_utils import notebook, plots
from lt_utils.claims import CLAIMS
from lt_utils.data import ROOT

NAMES = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))


def source(name):
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)


def test_there_is_one_notebook_per_section():
    assert [name[:2] for name in NAMES] == [f"0{i}" for i in range(len(NAMES))]
    assert set(CLAIMS) == set(NAMES)


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
    assert {f"{name}.ipynb" for name in NAMES} | {f"{name}_claims.csv" for name in NAMES} <= results
    assert {f"{name}.csv" for name in plots.FIGURES} <= results
    assert not [name for name in results if "part" in name or "failed" in name]
    for name in plots.FIGURES:
        for suffix in ("png", "svg"):
            assert (folder / "figures" / "smoke" / f"{name}.{suffix}").stat().st_size > 10_000


def test_executed_notebooks_show_their_figure_and_are_small(executed):
    for name in NAMES:
        path = executed[0] / "results" / "smoke" / f"{name}.ipynb"
        assert path.stat().st_size < 1_000_000
        outputs = [o for cell in nbformat.read(path, as_version=4).cells for o in cell.get("outputs", [])]
        assert not [o for o in outputs if o.output_type == "error"]
        assert any("image/png" in o.get("data", {}) for o in outputs)


def test_tables_hold_every_run_once(executed):
    table = pd.read_csv(executed[0] / "results" / "smoke" / "01_mask_criteria.csv")
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


def test_the_summary_prints_every_claim(executed):
    folder, environment = executed
    done = subprocess.run(
        [sys.executable, "-m", "lt_utils", "summary", "--profile", "smoke"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert sum(len(claims) for claims in CLAIMS.values()) == sum(
        line.startswith("fc ") for line in done.stdout.splitlines()
    )
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
    notebook.save_table("x", pd.DataFrame({"a": [0.1 + 0.2]}), tiny)
    path = notebook.results_folder("smoke-custom") / "x.csv"
    assert path.read_text() == "a\n0.3\n"
    assert json.dumps([p.name for p in path.parent.iterdir()]) == '["x.csv"]'
