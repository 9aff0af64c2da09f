"""`python -m lt_utils`: execute a notebook with papermill, redraw figures, sum up. The Makefile calls this."""

import argparse
import ast
import os
import shutil
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

import pandas as pd

from lt_utils import readme
from lt_utils.data import ROOT, DataError, arrays
from lt_utils.notebook import draw, figures_folder, results_folder
from lt_utils.plots import FIGURES
from lt_utils.profiles import PROFILES, choose

NOTEBOOKS = ROOT / "notebooks"


def show_progress(pipe: Path) -> None:
    """Copy what notebooks write into the pipe to our stderr, for as long as this process lives."""

    def copy() -> None:
        while True:
            with pipe.open() as stream:
                while text := stream.read(1):
                    sys.stderr.write(text)
                sys.stderr.flush()

    threading.Thread(target=copy, daemon=True).start()


def parameters(name: str, given: list[str], profile: str) -> dict:
    """Parameters of a notebook from words like `seeds=5`; SystemExit with the right names for a wrong one."""
    from papermill import inspect_notebook

    known = inspect_notebook(str(NOTEBOOKS / f"{name}.ipynb"))
    values = {"profile": profile}
    for word in given:
        key, _, text = word.partition("=")
        choose("parameter", key, known)
        try:
            values[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            values[key] = text
    return values


def execute(name: str, profile: str, given: list[str]) -> None:
    """Execute one notebook; the finished copy appears under results/ only if all of it succeeded."""
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    choose("notebook", name, [path.stem for path in NOTEBOOKS.glob("*.ipynb")])
    values = parameters(name, given, profile)
    out = results_folder(profile if not given else f"{profile}-custom")
    out.mkdir(parents=True, exist_ok=True)
    finished, failed = out / f"{name}.ipynb", out / f"{name}.failed.ipynb"
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
                    values,
                    kernel_name="python3",
                    progress_bar=False,
                    cwd=str(ROOT),
                    extra_arguments=["--log-level=ERROR"],  # of the kernel
                )
        except (PapermillExecutionError, DeadKernelError) as error:
            shutil.move(aside, failed)
            died = "its kernel died, perhaps for lack of memory; what it had finished is kept."
            why = f"{error.ename}: {error.evalue}" if isinstance(error, PapermillExecutionError) else died
            sys.exit(f"{name} failed: {why} The executed copy is {failed}.")
        shutil.move(aside, finished)
    failed.unlink(missing_ok=True)
    print(f"{name} done in {time.monotonic() - began:.0f} s: {finished}", flush=True)


def figures(profile: str) -> None:
    """Redraw every figure whose table exists, without training."""
    for name in FIGURES:
        if (results_folder(profile) / f"{name}.csv").exists():
            draw(name, profile)
            print(figures_folder(profile) / f"{name}.png")


def summary(profile: str) -> None:
    """Print what was found: the verdicts of all notebooks, and where the figures lie."""
    tables = [pd.read_csv(path) for path in sorted(results_folder(profile).glob("*_claims.csv"))]
    if not tables:
        sys.exit(f"nothing found yet at {results_folder(profile)}: run `make reproduce PROFILE={profile}`.")
    found = pd.concat(tables, ignore_index=True)
    found["interval"] = [f"{row.low:+.1f} to {row.high:+.1f}" for row in found.itertuples()]
    print(
        found[["network", "source", "claim", "difference", "interval", "verdict"]]
        .round(1)
        .to_string(index=False, justify="left")
    )
    counts = found["verdict"].value_counts()
    print(
        f"\n{', '.join(f'{n} {v}' for v, n in counts.items())} "
        "(differences in points of test accuracy, 95 % intervals over seeds)\n"
        f"figures: {figures_folder(profile)}\ntables and executed notebooks: {results_folder(profile)}"
    )


def fetch() -> None:
    """Fetch and verify the data sets."""
    for name in ("mnist", "cifar10"):
        arrays(name)
        print(f"{name}: verified")


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m lt_utils")
    parser.add_argument("command", choices=["execute", "figures", "summary", "data", "readme"])
    parser.add_argument("notebook", nargs="?")
    parser.add_argument("--profile", default="quick", choices=[*PROFILES, *(f"{name}-custom" for name in PROFILES)])
    parser.add_argument("-p", dest="given", action="append", default=[], metavar="NAME=VALUE")
    options = parser.parse_args()
    try:
        if options.command == "execute":
            execute(options.notebook, options.profile, options.given)
        elif options.command == "data":
            fetch()
        else:
            {"figures": figures, "summary": summary, "readme": readme.write}[options.command](options.profile)
    except (ValueError, DataError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
