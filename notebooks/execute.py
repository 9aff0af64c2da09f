"""Execute one notebook with papermill; the Makefile calls this for each.

    python notebooks/execute.py 01_mask_criteria --profile quick -p "seeds=5 criteria=['movement', 'random']"

It imports nothing of `lt_utils`, whose PyTorch the notebook's own kernel loads anyway.
"""

import argparse
import os
import re
import shutil
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterable
from pathlib import Path

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError
from parameters import values

NOTEBOOKS = Path(__file__).resolve().parent
ROOT = NOTEBOOKS.parent


def show_progress(pipe: Path) -> None:
    """Copy what notebooks write into the pipe to our stderr, for as long as this process lives."""

    def copy() -> None:
        while True:
            with pipe.open() as stream:
                while text := stream.read(1):
                    sys.stderr.write(text)
                sys.stderr.flush()

    threading.Thread(target=copy, daemon=True).start()


def parameters(name: str, given: list[str], profile: str, among: list[str]) -> dict:
    """`values` of a notebook, with its profile: those that it has. SystemExit with the right names for one that none of
    the notebooks `among` which it is executed has."""
    known = {other: papermill.inspect_notebook(str(NOTEBOOKS / f"{other}.ipynb")) for other in {name, *among}}
    chosen = values(given)
    for key in chosen:
        check_name("parameter", key, {key for one in known.values() for key in one})
    return {"profile": profile} | {key: value for key, value in chosen.items() if key in known[name]}


def execute(name: str, profile: str, given: list[str], among: list[str]) -> None:
    """Execute one notebook; the finished copy appears under results/ only if all of it succeeded."""
    for one in (name, *among):
        check_name("notebook", one, [path.stem for path in NOTEBOOKS.glob("*.ipynb")])
    chosen = parameters(name, given, profile, among)
    label = f"{profile}-custom" if given else profile
    os.environ["LT_NOTEBOOK"] = f"{profile}/{name}"
    if given:
        os.environ["LT_LABEL"] = label  # also of a notebook that has none of the parameters
    out = Path(os.environ.get("LT_RESULTS") or ROOT / "results") / label
    out.mkdir(parents=True, exist_ok=True)
    finished, failed = out.resolve() / f"{name}.ipynb", out.resolve() / f"{name}.failed.ipynb"
    began = time.monotonic()
    print(f"{name} ({profile})", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        pipe, aside = Path(temporary) / "progress", Path(temporary) / "executed.ipynb"
        os.mkfifo(pipe)
        show_progress(pipe)
        os.environ["LT_PROGRESS"] = str(pipe)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                papermill.execute_notebook(
                    NOTEBOOKS / f"{name}.ipynb",
                    aside,
                    chosen,
                    kernel_name="python3",
                    progress_bar=False,
                    cwd=str(ROOT),
                    extra_arguments=["--log-level=ERROR"],  # of the kernel
                )
        except (PapermillExecutionError, DeadKernelError) as error:
            if getattr(error, "ename", "") == "OutOfTime":
                print(f"{name}: not yet; {error.evalue}", flush=True)
                return
            shutil.move(aside, failed)
            died = "its kernel died, perhaps for lack of memory; what it had finished is kept."
            why = f"{error.ename}: {error.evalue}" if isinstance(error, PapermillExecutionError) else died
            sys.exit(f"{name} failed: {why} The executed copy is {failed}.")
        strip_accidents(aside)
        shutil.move(aside, finished)
    if os.environ.get("LT_DRAW_ONLY"):
        os.utime(finished, (0, 0))  # perhaps of a part of the runs: `make` executes it again
    failed.unlink(missing_ok=True)
    print(f"{name} done in {time.monotonic() - began:.0f} s: {finished}", flush=True)


def strip_accidents(path: Path) -> None:
    """Take times, addresses and papermill's random name for its cell out of an executed notebook, so that equal runs
    leave equal files."""
    notebook = nbformat.read(path, as_version=4)
    for part in (notebook, *notebook.cells):
        for key in ("papermill", "execution"):
            part.metadata.pop(key, None)
    for cell in notebook.cells:
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.id = "injected-parameters"
        for shown in (output["data"] for output in cell.get("outputs", []) if "text/plain" in output.get("data", {})):
            shown["text/plain"] = re.sub(r" at 0x[0-9a-f]+>", ">", shown["text/plain"])
    nbformat.write(notebook, path)


def check_name(kind: str, name: str, names: Iterable[str]) -> None:
    """SystemExit that lists `names` unless `name` is one of them."""
    if name not in names:
        sys.exit(f"error: unknown {kind} {name!r}: choose one of {', '.join(sorted(names))}.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebook")
    parser.add_argument("--profile", default="quick")
    parser.add_argument("-p", dest="given", action="append", default=[], metavar="NAME=VALUE ...")
    among = "notebooks to which the parameters are given: each takes those that it has"
    parser.add_argument("--among", nargs="+", default=[], metavar="NOTEBOOK", help=among)
    options = parser.parse_args()
    execute(options.notebook, options.profile, options.given, options.among)
