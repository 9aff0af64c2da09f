import psutil
import pytest
import torch

import lt_utils as lt
from lt_utils import starts


@pytest.fixture
def store(tmp_path, monkeypatch):
    """An empty store, results and figures of the test's own, and a machine that has nothing else to do."""
    monkeypatch.setattr(psutil, "cpu_percent", lambda *_, **__: 0.0)
    for variable, name in (("LT_STORE", "store"), ("LT_RESULTS", "results"), ("LT_FIGURES", "figures")):
        monkeypatch.setenv(variable, str(tmp_path / name))
    starts.finished_weights.cache_clear()
    return tmp_path / "store"


@pytest.fixture
def tiny():
    """Settings of a few iterations on real MNIST: two seeds, two rounds that reach 4 % of the weights."""
    return lt.settings("smoke", seeds=2, iterations=12, eval_every=6)


@pytest.fixture
def source():
    return torch.Generator().manual_seed(0)
