"""Finished runs as plain files under their content hash: found again, never repeated.

An entry is a folder `KEY/` with `run.json` (the run, its metrics, its provenance), `mask.safetensors` (one bit per
weight) and, only while another run may start from them, `weights.safetensors`. It is written aside and renamed, so that
a killed process leaves a whole entry or none. The store is the folder `results/runs/`, or `LT_STORE`.
"""

import json
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lt_utils.data import ROOT
from lt_utils.networks import NETWORKS
from lt_utils.runs import Run
from lt_utils.training import Outcome

VERSION = "0.1.0"


class StoreError(RuntimeError):
    """A result can't be kept; the message says what to do."""


def folder() -> Path:
    """The store's folder."""
    return Path(os.environ.get("LT_STORE") or ROOT / "results" / "runs")


def _entry(run: Run) -> Path:
    return folder() / run.key[:2] / run.key


def metrics(run: Run) -> dict[str, Any] | None:
    """The entry's `run.json` of a finished run, or None. A damaged entry counts as none, and is thrown away."""
    path = _entry(run) / "run.json"
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as error:
        print(f"{path} is damaged ({error}): thrown away; the run is done again.")
        shutil.rmtree(path.parent, ignore_errors=True)
        return None


def has_weights(run: Run) -> bool:
    """Whether the final weights of a finished run are still there."""
    return (_entry(run) / "weights.safetensors").exists()


def mask(run: Run) -> list[Tensor]:
    """The mask of a finished run, a bool tensor per layer."""
    packed = load_file(_entry(run) / "mask.safetensors")
    shapes = [layer.shape for layer in NETWORKS[run.network].layers]
    bits = [np.unpackbits(packed[f"mask.{i}"].numpy(), count=int(np.prod(s))) for i, s in enumerate(shapes)]
    return [torch.from_numpy(b.astype(bool)).view(s) for b, s in zip(bits, shapes)]


def weights(run: Run) -> tuple[list[Tensor], list[Tensor]]:
    """Start and final weights of a finished run whose weights are still there, a tensor per layer each."""
    tensors = load_file(_entry(run) / "weights.safetensors")
    layers = range(len(NETWORKS[run.network].layers))
    return [tensors[f"start.{i}"] for i in layers], [tensors[f"final.{i}"] for i in layers]


def save(run: Run, outcome: Outcome, start: list[Tensor], masks: list[Tensor], device: str, seconds: float) -> None:
    """Keep a finished run; its parent's weights go once this run carries the chain on (the dense network's stay)."""
    provenance = {
        "version": VERSION,
        "commit": commit(),
        "torch": torch.__version__,
        "device": device_name(device),
        "seconds": round(seconds, 3),
    }
    content = {
        "run": run.canonical.describe(),
        "metrics": outcome.metrics,
        "history": outcome.history,
        "provenance": provenance,
    }
    try:
        _write(_entry(run), content, outcome, start, masks if run.kind == "train" else [], run.has_heirs)
    except OSError as error:
        raise StoreError(f"{folder()} can't be written ({error}): free some disk space, or set LT_STORE.") from error
    if run.has_heirs and run.parent and run.parent.round:
        (_entry(run.parent) / "weights.safetensors").unlink(missing_ok=True)


def _write(entry: Path, content: dict, outcome: Outcome, start: list[Tensor], masks: list[Tensor], heirs: bool) -> None:
    entry.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".aside-", dir=entry.parent) as temporary:
        aside = Path(temporary) / entry.name
        aside.mkdir()
        if masks:
            bits = {f"mask.{i}": torch.from_numpy(np.packbits(m.numpy())) for i, m in enumerate(masks)}
            save_file(bits, aside / "mask.safetensors")
        if heirs:
            named = {"start": start, "final": outcome.weights, "bias": outcome.biases}
            save_file(
                {f"{n}.{i}": t.contiguous() for n, ts in named.items() for i, t in enumerate(ts)},
                aside / "weights.safetensors",
            )
        (aside / "run.json").write_text(json.dumps(content, indent=1))
        if entry.exists():
            shutil.rmtree(entry)
        aside.rename(entry)


@cache
def commit() -> str:
    """The repository's commit, with a + if the package differs from it; empty outside a repository."""

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "lt_utils") else "")
    except OSError:
        return ""


def device_name(device: str) -> str:
    """What the machine calls a device: the GPU's or the processor's name."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    try:
        names = [
            row.split(":")[1].strip() for row in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in row
        ]
        return f"{names[0]} ({len(names)} cores)"
    except (OSError, IndexError):
        return platform.processor() or platform.machine()
