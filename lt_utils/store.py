"""Finished runs as plain files under their content hash: found again, never repeated.

An entry is a folder `KEY/` with `run.json` (the run, its metrics, its provenance), `mask.safetensors` (one bit per
weight) and, only while another run may start from them, `weights.safetensors`; `checkpoints/KEY.safetensors` is a
training on its way. Every file is written aside and renamed, `run.json` last, and carries a checksum of its own: a
killed process leaves a finished run or none, and stores merge by copying one over the other. The store is the folder
`results/runs/`, or `LT_STORE`. Rows of the tables that are committed count as finished unless `FRESH=1`.
"""

import errno
import hashlib
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lt_utils import cpu
from lt_utils.data import ROOT
from lt_utils.networks import NETWORKS
from lt_utils.runs import Run
from lt_utils.training import Outcome

VERSION = "0.2.0"
COMMITTED = ("evening", "overnight", "paper")  # profiles whose tables are committed, by length of training
STALE = 3600  # seconds after which a half-written file is what a killed process left


class StoreError(RuntimeError):
    """A result can't be kept; the message says what to do."""


class Gone(RuntimeError):
    """A finished run's mask or weights aren't there (any more): the run is to be done again."""


def folder() -> Path:
    """The store's folder."""
    return Path(os.environ.get("LT_STORE") or ROOT / "results" / "runs")


def _entry(run: Run) -> Path:
    return folder() / run.key[:2] / run.key


def write(path: Path, put: Callable[[Path], Any]) -> None:
    """Have `put` write a file aside, and rename it to `path`. StoreError, with what to do, if that can't be done."""
    aside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob("*.part"):
            if time.time() - left.stat().st_mtime > STALE:
                left.unlink(missing_ok=True)
        put(aside)
        aside.chmod(path.parent.stat().st_mode & 0o666)  # safetensors' own is for its owner alone: stores are shared
        aside.replace(path)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        raise _unwritable(path.parent, error) from error


def _unwritable(where: Path, error: Exception) -> StoreError:
    full = "No space left" in str(error) or getattr(error, "errno", 0) in (errno.ENOSPC, errno.EDQUOT)
    todo = "free some disk space" if full else "make it writable"
    variable = "LT_STORE" if where.is_relative_to(folder()) else "LT_RESULTS"
    elsewhere = f"or set {variable} to another folder; what is finished is kept."
    return StoreError(f"{where} can't be written ({' '.join(str(error).split())}): {todo}, {elsewhere}")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write `content` with its checksum."""
    text = json.dumps({"sha256": _checksum(content), **content}, indent=1)
    write(path, lambda aside: aside.write_text(text))


def read_json(path: Path) -> dict[str, Any]:
    """What `write_json` wrote. ValueError if it isn't that any more."""
    content = json.loads(path.read_bytes())
    if content.pop("sha256") != _checksum(content):
        raise ValueError("wrong checksum")
    return content


def _checksum(content: dict[str, Any] | dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(content.items()):
        digest.update(name.encode())
        if isinstance(value, Tensor):
            digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
            digest.update(value.contiguous().view(-1).view(torch.uint8).numpy())
        else:
            digest.update(json.dumps(value, sort_keys=True).encode())
    return digest.hexdigest()


def write_tensors(path: Path, tensors: dict[str, Tensor], **description: str) -> None:
    """Write CPU tensors with their checksum and a description."""
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    write(path, lambda aside: save_file(whole, aside, description | {"sha256": _checksum(whole)}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What `write_tensors` wrote, and its description. ValueError if it isn't that any more."""
    try:
        with safe_open(path, "pt") as file:
            tensors, description = {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    if description.pop("sha256", None) != _checksum(tensors):
        raise ValueError("wrong checksum")
    return tensors, description


def _set_aside(path: Path, error: Exception) -> None:
    """Move a damaged entry (or file) out of the way, and say so."""
    to = folder() / "damaged" / f"{path.name}.{time.time_ns()}"
    print(f"{path} is damaged ({error}): set aside in {to.parent}; the run is done again.")
    to.parent.mkdir(exist_ok=True)
    with suppress(FileNotFoundError):  # another process was faster
        path.rename(to)


def metrics(run: Run) -> dict[str, Any] | None:
    """`metrics`, `provenance` (and `history`) of a finished run, or None. A damaged entry is set aside: None."""
    path = _entry(run) / "run.json"
    try:
        return read_json(path)
    except FileNotFoundError:
        return committed().get(run.key)
    except (ValueError, KeyError, AttributeError) as error:
        _set_aside(path.parent, error)
        return committed().get(run.key)
    except OSError as error:
        raise StoreError(f"{path} can't be read ({error}): make it readable, or set LT_STORE.") from error


def committed() -> dict[str, dict[str, Any]]:
    """Finished runs among the rows of the committed tables, by key; none if `FRESH` is set. Of two rows of one run, of
    two machines, that of the profile and notebook being executed counts (`LT_NOTEBOOK`, as in `overnight/01_...`): it
    finds its own again."""
    return {} if os.environ.get("FRESH") else _committed(ROOT / "results", os.environ.get("LT_NOTEBOOK", ""))


@cache
def _committed(where: Path, notebook: str) -> dict[str, dict[str, Any]]:
    from lt_utils import tables

    profile, _, name = notebook.partition("/")
    paths = [path for one in COMMITTED for path in sorted((where / one).glob("0*.csv"))]
    paths.sort(key=lambda path: (path.parent.name == profile) * (1 + path.name.startswith(name)))  # the last one counts
    return {key: row for path in paths for key, row in tables.finished(path).items()}


def has_weights(run: Run) -> bool:
    """Whether the final weights of a finished run are still there."""
    return (_entry(run) / "weights.safetensors").exists()


def has_mask(run: Run) -> bool:
    """Whether the mask of a finished run is there: it isn't, if only its row in a table is."""
    return (_entry(run) / "mask.safetensors").exists()


def _tensors(run: Run, name: str) -> dict[str, Tensor]:
    path = _entry(run) / f"{name}.safetensors"
    try:
        return read_tensors(path)[0]
    except FileNotFoundError as error:
        raise Gone(f"{path} is gone") from error
    except ValueError as error:
        _set_aside(path.parent, error)
        raise Gone(f"{path} was damaged") from error


def pack(masks: list[Tensor]) -> dict[str, Tensor]:
    """Masks as one bit per weight."""
    return {f"mask.{i}": torch.from_numpy(np.packbits(m.cpu().numpy())) for i, m in enumerate(masks)}


def unpack(network: str, packed: dict[str, Tensor]) -> list[Tensor]:
    """The bool masks of `pack`, a tensor per layer."""
    shapes = [layer.shape for layer in NETWORKS[network].layers]
    bits = [np.unpackbits(packed[f"mask.{i}"].numpy(), count=int(np.prod(s))) for i, s in enumerate(shapes)]
    return [torch.from_numpy(b.astype(bool)).view(s) for b, s in zip(bits, shapes)]


def mask(run: Run) -> list[Tensor]:
    """The mask of a finished run, a bool tensor per layer. Gone if it isn't there."""
    return unpack(run.network, _tensors(run, "mask"))


def weights(run: Run) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Start and final weights, and final biases, of a finished run, a tensor per layer each. Gone if not there."""
    tensors = _tensors(run, "weights")
    layers = range(len(NETWORKS[run.network].layers))
    start, final, bias = ([tensors[f"{name}.{i}"] for i in layers] for name in ("start", "final", "bias"))
    return start, final, bias


def put(run: Run, content: dict[str, Any]) -> None:
    """Keep the metrics and provenance of a finished run, last of what is kept of it."""
    write_json(_entry(run) / "run.json", content)


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
    entry = _entry(run)
    if run.kind != "found":  # a found mask is made again from the dense network's weights
        write_tensors(entry / "mask.safetensors", pack(masks))
    if run.has_heirs:
        named = {"start": start, "final": outcome.weights, "bias": outcome.biases}
        write_tensors(
            entry / "weights.safetensors", {f"{n}.{i}": t.cpu() for n, ts in named.items() for i, t in enumerate(ts)}
        )
    put(run, content)
    _checkpoint(run).unlink(missing_ok=True)
    if run.has_heirs and run.parent and run.parent.round:
        (_entry(run.parent) / "weights.safetensors").unlink(missing_ok=True)


def _checkpoint(run: Run) -> Path:
    return folder() / "checkpoints" / f"{run.key}.safetensors"


def save_checkpoint(run: Run, iteration: int, tensors: dict[str, Tensor], seconds: float) -> None:
    """Keep where a training stands after `iteration` and so many seconds of it."""
    write_tensors(_checkpoint(run), tensors, iteration=str(iteration), seconds=f"{seconds:.3f}")


def checkpoint_iteration(run: Run) -> int:
    """The iteration of a training's checkpoint; 0 if there is none, or none that can be read."""
    try:
        with safe_open(_checkpoint(run), "pt") as file:
            return int(file.metadata()["iteration"])
    except (FileNotFoundError, SafetensorError, TypeError, KeyError, ValueError):
        return 0


def load_checkpoint(run: Run) -> tuple[int, dict[str, Tensor], float]:
    """Iteration, tensors and seconds so far of a training's checkpoint. Gone if there is none; a damaged one is set
    aside."""
    try:
        tensors, description = read_tensors(_checkpoint(run))
        return int(description["iteration"]), tensors, float(description.get("seconds", 0))
    except FileNotFoundError as error:
        raise Gone("no checkpoint") from error
    except (ValueError, KeyError) as error:
        _set_aside(_checkpoint(run), error)
        raise Gone("a damaged checkpoint") from error


@contextmanager
def claimed(runs: list[Run]) -> Iterator[list[Run]]:
    """Those of `runs` that no other process is doing; they are this process's until the end of the block, or of it."""
    where = folder() / "locks"
    with ExitStack() as locks:
        mine = []
        try:
            where.mkdir(parents=True, exist_ok=True)
            for run in runs:
                with suppress(filelock.Timeout):
                    locks.enter_context(filelock.FileLock(where / run.key, blocking=False))
                    mine.append(run)
        except OSError as error:
            raise _unwritable(where, error) from error
        yield mine


@cache
def commit() -> str:
    """The repository's commit, with a + if the package differs from it; empty outside a repository."""

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "lt_utils") else "")
    except OSError:
        return ""


@cache
def device_name(device: str) -> str:
    """What the machine calls a device: the GPU's name, or the processor's with its cores and vector instructions."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    try:
        names = [
            row.split(":")[1].strip() for row in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in row
        ]
        matrices = ", AMX" * cpu.has("amx_bf16")
        return f"{names[0]} ({len(names)} cores, {torch.backends.cpu.get_cpu_capability()}{matrices})"
    except (OSError, IndexError):
        return platform.processor() or platform.machine()
