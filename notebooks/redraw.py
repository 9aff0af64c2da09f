"""Execute the committed notebooks again from their own tables, after a change to them or to what they draw: nothing is
trained, every number stays. `make redraw` calls this for all of them.

    python notebooks/redraw.py evening overnight --only 02_mask1_actions

This machine's own finished runs play no part: a notebook that no change has touched comes out the same byte for byte.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from execute import check_name

from lt_utils import store, tables
from lt_utils.notebook import figures_folder, results_folder
from lt_utils.readme import SCALES
from lt_utils.runs import Run

NOTEBOOKS = Path(__file__).resolve().parent


def redraw(name: str, label: str) -> None:
    """Execute a notebook of a folder of results, in its place."""
    profile = SCALES[label]
    with tempfile.TemporaryDirectory() as temporary:
        own = {variable: str(Path(temporary) / variable) for variable in ("LT_STORE", "LT_RESULTS", "LT_FIGURES")}
        os.environ["LT_STORE"] = own["LT_STORE"]
        precisions = fill(tables.files(results_folder(label), name))
        for variable, folder in (("LT_RESULTS", results_folder(label)), ("LT_FIGURES", figures_folder(label))):
            folder.mkdir(parents=True, exist_ok=True)
            Path(own[variable]).mkdir()
            (Path(own[variable]) / profile).symlink_to(folder.resolve())  # the reference has another name
        own |= {"FRESH": "1", "LT_DRAW_ONLY": "1", "PRECISION": precisions}
        command = [sys.executable, str(NOTEBOOKS / "execute.py"), name, "--profile", profile]
        if subprocess.run(command, env=os.environ | own, check=False).returncode:
            sys.exit(f"{label} stays as it is from {name} on.")


def fill(files: list[Path]) -> str:
    """Put the runs of tables into the store. Returns the precision of each network, as `PRECISION` takes it."""
    precisions = {}
    for path in files:
        entries = tables.finished(path)
        for row in tables.read(path).to_dict("records") if entries else []:
            run = Run.of(row)
            store.put(run, entries[run.key])
            precisions[run.network] = run.precision
    return " ".join(f"{network}={precision}" for network, precision in precisions.items())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", nargs="*", metavar="LABEL", help=f"folders of results: {', '.join(SCALES)}")
    parser.add_argument("--only", action="append", metavar="NOTEBOOK")
    options = parser.parse_args()
    names = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))
    for kind, given, known in (("results", options.labels, SCALES), ("notebook", options.only or [], names)):
        for one in given:
            check_name(kind, one, known)
    for label in options.labels or SCALES:
        for name in options.only or names:
            if (results_folder(label) / f"{name}.ipynb").exists():
                redraw(name, label)
