"""The results that README.md shows: copied from a finished `make reproduce`, and its tables written from the copies."""

import shutil

import pandas as pd

from lt_utils import plots, scorecard
from lt_utils.data import ROOT
from lt_utils.notebook import figures_folder, results_folder, save_png
from lt_utils.paper import PAPER
from lt_utils.store import COMMITTED

LABEL = "reference"
SCALES = {name: name for name in reversed(COMMITTED)} | {LABEL: "quick"}  # the longest trainings first
BEGIN, END = "<!-- tables: written by `make readme` -->", "<!-- end of tables -->"
SHOWN = "![Every claim tested: difference, interval, verdict](figures/reference/scorecard.png)"
SUPERMASKS = "Supermasks, best test accuracy in % (and points from the paper's):"
BENCH = "<!-- speeds: written by `make readme` -->"


def collect() -> None:
    """Put the tables, figures and executed notebooks of `quick` in place of the reference folders' own, if all of its
    notebooks were executed; else say which were not, and leave those folders alone."""
    results, figures, profile = results_folder(LABEL), figures_folder(LABEL), SCALES[LABEL]
    executed = {path.name for path in results_folder(profile).glob("0?_*.ipynb")}
    lacking = sorted({path.name for path in (ROOT / "notebooks").glob("*.ipynb")} - executed)
    if lacking:
        return print(f"{results} stays as it is: {profile} has not executed {', '.join(lacking)} (make reproduce).")
    for folder in (results, figures):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    for path in (*results_folder(profile).glob("*.csv"), *results_folder(profile).glob("0?_*.ipynb")):
        shutil.copy(path, results)
    for path in figures_folder(profile).glob("*.png"):
        shutil.copy(path, figures)


def _labels() -> list[str]:
    """The folders under results/ whose verdicts are shown."""
    return [label for label in SCALES if any(results_folder(label).glob("0[0-5]_*_claims.csv"))]


def _markdown(table: pd.DataFrame) -> str:
    lines = [list(table.columns), ["---"] * len(table.columns), *table.astype(str).values.tolist()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def tables() -> str:
    """The README's tables, in Markdown: the count of verdicts, the verdicts, and supermasks beside the paper's."""
    shown = _labels()
    judged = scorecard.combined(shown)
    interval = "difference (95 % interval)"
    judged[interval] = [
        f"{row.difference:+.1f}" + ("" if row.seeds < 2 else f" ({row.low:+.1f} to {row.high:+.1f})")
        for row in judged.itertuples()
    ]  # fmt: skip
    judged["scale"] = judged["profile"].map(SCALES)
    counted = scorecard.counts(judged).astype(str)
    alone, adjusted = counted["alone"], counted["after Holm"]
    counted = (alone + " (" + adjusted + ")").assign(**{"not run": alone["not run"]}).reset_index()
    judged = judged[judged["seeds"] > 0].rename(columns={"verdict_holm": "after Holm"})
    columns = ["network", "source", "claim", interval, "scale", "seeds", "verdict", "after Holm"]
    every = f"<details><summary>Every claim that was tested</summary>\n\n{_markdown(judged[columns])}\n\n</details>"
    return "\n\n".join([_markdown(counted), every, SUPERMASKS, _markdown(_supermasks(shown)), SHOWN])


def _supermasks(labels: list[str]) -> pd.DataFrame:
    """A row per network and scale, with the difference from the paper's figure in points, under the paper's row."""
    rows = []
    tables = {label: scorecard.supermasks(label) for label in labels}
    for network in PAPER:
        here = {SCALES[label]: table.loc[network] for label, table in tables.items() if network in table.index}
        if here:
            paper = next(iter(here.values())).loc["paper"]
            rows.append({"": f"{network}, the paper's"} | {name: f"{value:.1f}" for name, value in paper.items()})
        for scale, table in here.items():
            cells = {
                name: "" if pd.isna(value) else f"{value:.1f} ({table.loc['difference', name]:+.1f})"
                for name, value in table.loc["here"].items()
            }
            rows.append({"": f"{network}, here at `{scale}`"} | cells)
    return pd.DataFrame(rows)


def speeds() -> str:
    """The tables of `make bench`, in Markdown, machine by machine, the last measured first and the others folded: per
    network and kind of training, the ordinary loops and our best, and where its time goes."""
    machines = []
    for path in sorted(results_folder("bench").glob("*_machine.csv")):
        place = path.name.removesuffix("_machine.csv")
        every, profiles = pd.read_csv(path), path.with_name(f"profile_{place}.csv")
        profiles = pd.read_csv(profiles) if profiles.exists() else every[:0]
        for machine, measured in pd.read_csv(path.with_name(f"{place}.csv")).groupby("machine", sort=False):
            rates = every[every["machine"] == machine].itertuples()
            named = ", ".join(f"{row.quantity} {_number(row.value)}" for row in rates)
            parts = [f"{machine} ({named}):", _markdown(_speeds(measured))]
            profiled = profiles[profiles["machine"] == machine]
            if len(profiled):
                parts += ["Where a network-step's time goes there, %:", _markdown(_profile(profiled))]
            machines.append("\n\n".join(parts))
    *others, last = machines
    folded = ["<details><summary>Other machines</summary>", *others, "</details>"] if others else []
    return "\n\n".join([last, *folded])


def _speeds(measured: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for (network, kind), here in _in_order(measured):
        ms = here.set_index("loop")["ms per network-step"]
        best = here.loc[here["ms per network-step"].idxmin()]
        rows.append(
            {
                "network": f"{network}, {kind}",
                "idiomatic, ms": _number(ms["idiomatic loop"]),
                "in memory, ms": _number(ms["in-memory loop"]),
                "ours, ms": f"{_number(best['ms per network-step'])} ({best['loop']})",
                "x idiomatic": f"{best['x idiomatic']:.1f}",
                "images/s": f"{best['images/s']:,.0f}",
                "floor, ms": _number(best["floor ms"]),
                "share of the matrix rate": f"{100 * best['share of FLOP/s']:.0f} %",
            }
        )
    return pd.DataFrame(rows)


def _number(value: float) -> str:
    """With three digits, or, if it is large, in full."""
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def _profile(profiled: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for (network, kind), here in _in_order(profiled):
        stack = f"{network}, {kind} (stack of {here['stack'].iloc[0]}, {here['precision'].iloc[0]})"
        rows.append({"network": stack} | {row.part: f"{100 * row.share:.0f}" for row in here.itertuples()})
    return pd.DataFrame(rows)


def _in_order(measured: pd.DataFrame) -> list[tuple[tuple[str, str], pd.DataFrame]]:
    """Its rows by network and kind, in the order of the networks; weights before learned masks."""
    groups = list(measured.groupby(["network", "kind"]))
    return sorted(groups, key=lambda group: (list(PAPER).index(group[0][0]), group[0][1] == "learned"))


def render(text: str) -> str:
    """README `text` with its tables as they should be."""
    for begin, table in ((BEGIN, tables), (BENCH, speeds)):
        head, rest = text.split(begin)
        text = f"{head}{begin}\n\n{table()}\n\n{END}{rest.split(END, 1)[1]}"
    return text


def write() -> None:
    """Collect the results of `quick` and bring README.md, and its scorecard, up to date with all that is committed."""
    collect()
    save_png(plots.scorecard(scorecard.combined(_labels())), figures_folder(LABEL) / "scorecard.png", dpi=110)
    readme = ROOT / "README.md"
    readme.write_text(render(readme.read_text()))
