"""What the repository promises about itself: one set of versions, no hosts, no outputs, a README that is up to date."""

import re
import shutil
import subprocess
import sys

import nbformat
import pandas as pd
import pytest
import torch

from lt_utils import claims, readme, scorecard, store, tables
from lt_utils.data import ROOT

PINS = re.compile(r"^\s*-?\s*([A-Za-z0-9_.-]+)==([^ ;\\\n]+)", re.M)


def pins(name):
    return {(package.lower(), version) for package, version in PINS.findall((ROOT / name).read_text())}


def test_conda_and_pip_install_the_same_versions():
    assert pins("environment.yml") == pins("requirements.in")
    assert pins("requirements.in") <= pins("requirements.txt")


def test_every_requirement_is_hashed_and_names_no_host():
    text = (ROOT / "requirements.txt").read_text()
    blocks = re.split(r"\n(?=\S)", text.strip())
    assert all("--hash=sha256:" in block for block in blocks)
    assert "://" not in text


def test_versions_agree():
    from lt_utils.store import VERSION

    for name in ("pyproject.toml", "CITATION.cff"):
        assert re.search(
            rf'^version: ?=? ?"?{re.escape(VERSION)}"?$',
            (ROOT / name).read_text().replace("version = ", "version: "),
            re.M,
        )


def test_help_lists_every_target_that_the_readme_names():
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    named = set(re.findall(r"`make ([a-z]+)", (ROOT / "README.md").read_text()))
    assert named
    assert all(f"make {target}" in listed for target in named)


@pytest.mark.parametrize(
    ("given", "says", "right"),
    [
        ("ONLY=01_mask_criterion", "no such notebook", "01_mask_criteria"),
        ("PROFILE=evning", "no such profile", "evening"),
        ("PROFILE=smoke quick", "no such profile", "choose one of smoke quick"),
    ],
)
def test_a_wrong_name_stops_make_with_the_right_ones(given, says, right):
    done = subprocess.run(["make", "reproduce", given], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    assert says in done.stderr
    assert right in done.stderr


def test_setup_makes_an_environment_in_the_place_of_a_link_and_leaves_alone_what_it_points_to(tmp_path):
    for name in ("Makefile", "requirements.txt"):
        shutil.copy(ROOT / name, tmp_path)
    others = tmp_path / "others"
    others.mkdir()
    (others / "kept").touch()
    (tmp_path / ".venv").symlink_to(others)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@" --without-pip\n')  # nothing can be installed: that fails
    python.chmod(0o755)
    command = ["make", "setup", f"BASE_PYTHON={python}"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode
    assert (others / "kept").exists()
    assert (tmp_path / ".venv" / "pyvenv.cfg").exists()
    assert not (tmp_path / ".venv").is_symlink()


def test_committed_notebooks_are_executed_again_as_a_clone_cannot_tell_whether_they_are_whole():
    for profile in store.COMMITTED:
        command = ["make", "-n", "reproduce", f"PROFILE={profile}", "ONLY=04_supermasks"]
        planned = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert f"execute.py 04_supermasks --profile {profile}" in planned


def test_the_engine_stays_thin():
    lines = {path.name: len(path.read_text().splitlines()) for path in (ROOT / "lt_utils").glob("*.py")}
    assert max(lines.values()) <= 350, lines


@pytest.mark.parametrize("page", readme.PAGES)
def test_the_tables_of_the_pages_are_up_to_date(page):
    text = (ROOT / page).read_text()
    assert readme.render(text) == text


@pytest.mark.parametrize("label", [readme.LABEL, *store.COMMITTED])
def test_the_verdicts_that_are_committed_are_those_of_the_committed_tables(label):
    committed = ROOT / "results" / label
    judged = [name for name in claims.CLAIMS if tables.files(committed, name)]
    assert judged
    found = {f"{name}_claims": claims.judge(name, tables.kept(committed, name)) for name in judged}
    for name, verdicts in (found | {"06_scorecard": scorecard.verdicts(label)}).items():
        both = (table.fillna({"direction": ""}) for table in (tables.kept(committed, name), verdicts))
        pd.testing.assert_frame_equal(*both, check_dtype=False, rtol=1e-5, obj=name)


def test_a_page_gets_the_tables_that_it_has_a_place_for():
    shown = {page: readme.render((ROOT / page).read_text()) for page in readme.PAGES}
    assert all(any(readme.BEGIN.format(name) in text for text in shown.values()) for name in readme.BLOCKS)
    begin, end = readme.BEGIN.format("verdicts"), readme.END.format("verdicts")
    once = readme.render(f"before {begin} old {end} after")
    assert once == f"before {begin}\n\n{readme.verdicts()}\n\n{end} after" == readme.render(once)


def test_the_reference_is_replaced_by_a_whole_quick_only(store, capsys):
    from lt_utils.notebook import results_folder

    kept, quick = results_folder(readme.LABEL) / "kept.csv", results_folder("quick")
    masks = "supermask_fc.safetensors"
    last, *others = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
    for path in (kept, *(quick / name for name in (*others, masks))):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    readme.collect()
    assert kept.exists()
    assert last in capsys.readouterr().out
    (quick / last).write_text("")
    readme.collect()
    assert {path.name for path in kept.parent.iterdir()} == {last, *others, masks}


def test_the_executed_notebooks_that_are_committed_are_those_of_today():
    """But for their outputs and papermill's cell of parameters: what a reader sees there is what a clone runs."""

    def sources(path):
        cells = nbformat.read(path, as_version=4).cells
        return [cell.source for cell in cells if "injected-parameters" not in cell.metadata.get("tags", [])]

    labels = (readme.LABEL, *store.COMMITTED)
    executed = [path for label in labels for path in (ROOT / "results" / label).glob("0?_*.ipynb")]
    assert len(executed) > 20
    assert [path for path in executed if sources(path) != sources(ROOT / "notebooks" / path.name)] == []


def test_every_number_of_the_readmes_answers_stands_in_its_tables():
    text = (ROOT / "README.md").read_text()
    answers = [row.split("|")[3:] for row in text.split("In one minute")[1].split("Of the 54")[0].splitlines()]
    numbers = re.findall(r"[-+]?\d+\.\d", str(answers))
    learned = pd.read_csv(ROOT / "results" / "bench" / "mask_learning.csv")[["test_accuracy", "final_test_accuracy"]]
    tables = readme.every_claim() + readme.supermasks() + str([f"{value:.1f}" for value in learned.stack()])
    assert len(numbers) > 10
    assert [number for number in numbers if not re.search(rf"(?<![\d.]){re.escape(number)}(?!\d)", tables)] == []


def test_the_readmes_python_runs(store, monkeypatch, tmp_path):
    """As it stands, but for its scale; the criterion is written where README says."""
    import lt_utils as lt
    from lt_utils import criteria, plots

    sweep, ticket, criterion = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    monkeypatch.chdir(tmp_path)
    said: dict = {}
    exec(sweep.replace('"quick", seeds=3, rounds=9', '"smoke", seeds=1, rounds=2'), said)
    assert set(said["table"]["mask0"]) == {"zero", "init"}
    exec(ticket, said)
    assert 33_000 < (tmp_path / "ticket.safetensors").stat().st_size < 35_000
    assert said["network"](torch.rand(5, 1, 28, 28)).shape == (5, 10)
    known = set(lt.CRITERIA)
    exec(criterion, dict(vars(criteria)))
    (new,) = set(lt.CRITERIA) - known
    try:
        table = lt.run(lt.sweep(said["settings"], criterion=["random", new]))
        legends = [axes.get_legend() for axes in plots.FIGURES["01_mask_criteria"](table).axes]
    finally:
        del lt.CRITERIA[new]
    assert new in {text.get_text() for legend in legends if legend for text in legend.get_texts()}


@pytest.mark.parametrize("page", readme.PAGES)
def test_the_links_of_the_pages_lead_somewhere(page):
    """Those to a heading of a page, to one that is there."""
    links = re.findall(r"\]\(([^)#]+)(?:#([^)]+))?\)", (ROOT / page).read_text())
    here = [((ROOT / page).parent / path, heading) for path, heading in links if "://" not in path]
    assert here
    assert [path for path, _ in here if not path.exists()] == []
    for path, heading in here:
        headings = re.findall(r"^#+ (.*)$", path.read_text(), re.M) if heading else []
        assert not heading or heading in [re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings]
