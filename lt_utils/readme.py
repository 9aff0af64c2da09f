"""What the pages in Markdown show: results copied from a finished `make reproduce`, and tables written from them."""

import shutil
from collections.abc import Iterator

import pandas as pd

from lt_utils import claims, plots, scorecard
from lt_utils.data import ROOT
from lt_utils.notebook import figures_folder, results_folder, save_png
from lt_utils.paper import PAPER
from lt_utils.store import COMMITTED

LABEL = "reference"
SCALES = {name: name for name in reversed(COMMITTED)} | {LABEL: "quick"}  # the longest trainings first
NOT_RUN = "none yet"  # the scale of a claim that has not run
ANSWERS = {"reproduced": "yes", "contradicted": "no", "inconclusive": "open"}
HEADLINES = (  # the claims of sections 0 to 3 that are set side by side
    "winning tickets match the dense network (3.5 % to 20 % of the weights)",
    "winning tickets exceed the dense network at moderate pruning (20 % to 80 %)",
    "winning ticket (iterative) beats random mask",
    "winning ticket (iterative) beats ticket's mask, random reinit",
    "winning ticket (iterative) beats one-shot ticket",
    "large_final beats random",
    "random beats small_final",
    "magnitude_increase is as good as large_final",
    "movement is as good as large_final",
    "rewind beats reinit",
    "reinit_same_sign is as good as rewind",
    "rewind beats constant",
    "constant_same_sign is as good as rewind",
    "zero beats init (5 % to 60 %)",
    "variant_1 beats zero",
    "variant_1 beats control_reverse",
    "variant_2 beats variant_1",
)
PAGES = ("README.md", "results/README.md", "results/bench/README.md")
BEGIN, END = "<!-- {}: written by `make readme` -->", "<!-- end of {} -->"


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
    for pattern in ("*.csv", "0?_*.ipynb", "supermask_*.safetensors"):
        for path in results_folder(profile).glob(pattern):
            shutil.copy(path, results)
    for path in figures_folder(profile).glob("*.png"):
        shutil.copy(path, figures)


def _labels() -> list[str]:
    """The folders under results/ whose verdicts are shown."""
    return [label for label in SCALES if any(results_folder(label).glob("0[0-5]_*_claims.csv"))]


def _markdown(table: pd.DataFrame) -> str:
    lines = [list(table.columns), ["---"] * len(table.columns), *table.astype(str).values.tolist()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _judged() -> pd.DataFrame:
    """Every claim's verdict, with the scale of the trainings that it is from in the column `scale`."""
    judged = scorecard.combined(_labels())
    scales = pd.Categorical(judged["profile"].map(SCALES).fillna(NOT_RUN), [*SCALES.values(), NOT_RUN])
    return judged.assign(scale=scales)


def verdicts() -> str:
    """How many claims have which verdict, per network and scale of training, the longest first; in brackets, after
    Holm's adjustment."""
    counted = scorecard.counts(_judged(), ["network", "scale"]).astype(str)
    alone, adjusted = counted["alone"], counted["after Holm"]
    cells = (alone + " (" + adjusted + ")").replace("0 (0)", "0").assign(**{"not run": alone["not run"]})
    return _markdown(cells.reset_index())


def networks() -> str:
    """The headlines network by network: difference and verdict, and the scales that they are from."""
    judged = _judged()
    judged = judged[judged["claim"].isin(HEADLINES) & (judged["seeds"] > 0)]
    cells = judged["difference"].map("{:+.1f}".format) + " " + judged["verdict"].map(ANSWERS)
    wide = judged.assign(cell=cells).pivot(index="claim", columns="network", values="cell").loc[list(HEADLINES)]
    scales = judged.groupby("network")["scale"].agg(lambda scales: "`, `".join(scales.sort_values().unique()))
    wide = wide[[name for name in PAPER if name in wide]].fillna("")
    return _markdown(wide.rename(columns=lambda name: f"{name} (`{scales[name]}`)").reset_index())


def every_claim() -> str:
    """Every claim that was tested, with its difference, interval and verdict."""
    return _markdown(claims.readable(_judged(), digits=1).loc[:, :"after Holm"])


def supermasks() -> str:
    """Best test accuracy in % of supermasks, per network and scale, beside the paper's."""
    return _markdown(_supermasks(_labels()))


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


def _measured() -> Iterator[tuple[str, str, str, pd.DataFrame, pd.DataFrame]]:
    """What `make bench` measured, GPUs first and then CPUs, the last machine first: which of the two it is, its name,
    its rates in words, the speeds, the profile."""
    for path in sorted(results_folder("bench").glob("*_machine.csv"), reverse=True):
        place = path.name.removesuffix("_machine.csv")
        every, profiles = pd.read_csv(path), path.with_name(f"profile_{place}.csv")
        profiles = pd.read_csv(profiles) if profiles.exists() else every[:0]
        each = list(pd.read_csv(path.with_name(f"{place}.csv")).groupby("machine", sort=False))
        for machine, measured in reversed(each):
            rates = every[every["machine"] == machine].itertuples()
            named = ", ".join(f"{row.quantity} {_number(row.value)}" for row in rates)
            yield place, machine, named, measured, profiles[profiles["machine"] == machine]


def speed() -> str:
    """The ordinary loops and our best on the GPU and on the CPU measured last."""
    last = {}
    for place, machine, _, measured, _ in _measured():
        last.setdefault(place, f"{machine}:\n\n{_markdown(_speeds(measured))}")
    return "\n\n".join(last.values())


def speeds() -> str:
    """The same machine by machine, with their rates and where a network-step's time goes."""
    parts = []
    for _, machine, rates, measured, profile in _measured():
        parts += [f"### {machine}", f"{rates}.", _markdown(_speeds(measured))]
        if len(profile):
            parts += ["Where a network-step's time goes there, %:", _markdown(_profile(profile))]
    return "\n\n".join(parts)


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
                "share of the floor": f"{100 * best['floor ms'] / best['ms per network-step']:.0f} %",
                "of the matrix rate": f"{100 * best['share of FLOP/s']:.0f} %",
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


BLOCKS = {
    "verdicts": verdicts,
    "supermasks": supermasks,
    "every claim": every_claim,
    "networks": networks,
    "speed": speed,
    "speeds": speeds,
}


def render(text: str) -> str:
    """The text of a page with its tables as they should be."""
    for name, table in BLOCKS.items():
        begin, end = BEGIN.format(name), END.format(name)
        if begin in text:
            head, rest = text.split(begin)
            text = f"{head}{begin}\n\n{table()}\n\n{end}{rest.split(end, 1)[1]}"
    return text


def write() -> None:
    """Collect the results of `quick` and bring the pages, and the scorecard's figure, up to date with all that is
    committed."""
    collect()
    save_png(plots.scorecard(_judged()), figures_folder(LABEL) / "scorecard.png", dpi=110)
    for page in PAGES:
        path = ROOT / page
        path.write_text(render(path.read_text()))
