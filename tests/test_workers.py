"""Sweeps on other executors: processes per device, a dask.distributed cluster whose workers die, threads."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

import lt_utils as lt
from lt_utils import lottery, starts, workers
from lt_utils.data import ROOT


@pytest.fixture
def sweep():
    s = lt.settings("smoke", seeds=2, rounds=2, iterations=150, eval_every=50)
    return [*lt.sweep(s, criterion=["large_final", "random"]), *lt.sweep(s, kind="learned", mask1=["rewind"])]


@pytest.fixture
def alone(sweep, store, tmp_path, monkeypatch):
    """The table of the sweep, done in this process with one thread, as the workers have; then an empty store again."""
    monkeypatch.setenv("LT_STORE", str(tmp_path / "alone"))
    with lottery.speed.threads(1):
        table = plain(lt.run(sweep))
    monkeypatch.setenv("LT_STORE", str(store))
    starts.finished_weights.cache_clear()
    return table


def plain(table):
    return table.drop(columns=["seconds"])


def kill_one(find, store, finished):
    """Kill the first process that `find` names once so many runs are finished; returns whom it killed, in time."""

    def watch():
        while len(list(store.glob("??/*/run.json"))) < finished:
            time.sleep(0.01)
        killed.append(find()[0])
        os.kill(killed[0], signal.SIGKILL)

    killed = []
    threading.Thread(target=watch, daemon=True).start()
    return killed


def pool_processes():
    return [p.pid for p in psutil.Process().children() if "spawn_main" in " ".join(p.cmdline())]


def test_processes_of_which_one_is_killed_give_the_identical_table(sweep, alone, store, monkeypatch):
    monkeypatch.setenv("WORKERS", "cpu,cpu")
    killed = kill_one(pool_processes, store, 3)
    table = lt.run(sweep)
    assert plain(table).equals(alone)
    assert killed


def test_a_dask_cluster_of_which_a_worker_is_killed_gives_the_identical_table(sweep, alone, store, monkeypatch):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    dask = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    scheduler = subprocess.Popen(
        [*dask, "--port", "0", "--host", "127.0.0.1", "--no-dashboard"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    address = next(found[0] for line in scheduler.stderr if (found := re.findall(r"tcp://127\.0\.0\.1:\d+", line)))
    threading.Thread(target=scheduler.stderr.read, daemon=True).start()
    worker = [
        sys.executable,
        "-m",
        "distributed.cli.dask_worker",
        address,
        "--nthreads",
        "1",
        "--no-nanny",
        "--no-dashboard",
    ]
    two = [subprocess.Popen(worker, env=environment, stderr=subprocess.DEVNULL) for _ in range(2)]
    try:
        wait_for_workers(address, 2)
        monkeypatch.setenv("SCHEDULER", address)
        killed = kill_one(lambda: [two[0].pid], store, 3)
        table = lt.run(sweep)
        assert plain(table).equals(alone)
        assert killed
    finally:
        for process in (*two, scheduler):
            process.kill()
            process.wait()


def wait_for_workers(address, number):
    from distributed import Client

    with Client(address) as client:
        client.wait_for_workers(number, timeout=60)


def test_processes_end_with_a_sweep_that_is_killed(store):
    """Else they would go on with their training, beside the workers of the same command started again."""
    program = "import lt_utils as lt; lt.run(lt.sweep(lt.settings('smoke', iterations=10**6, eval_every=10**6)))"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "WORKERS": "cpu"}
    sweep = subprocess.Popen([sys.executable, "-c", program], env=environment, stderr=subprocess.DEVNULL)
    try:
        while not (found := [p for p in psutil.Process(sweep.pid).children() if training(p)]):
            assert sweep.poll() is None
            time.sleep(0.1)
    finally:
        sweep.kill()
        sweep.wait()
    gone, alive = psutil.wait_procs(found, timeout=60)
    for process in alive:
        process.kill()
    assert gone
    assert not alive


def training(process):
    """Whether a process has computed for longer than imports take."""
    return process.cpu_times().user > 12


def test_any_executor_will_do(sweep, alone, monkeypatch):
    with ThreadPoolExecutor(1) as executor, lottery.speed.threads(1):
        assert plain(lt.run(sweep, executor=executor)).equals(alone)


def test_a_worker_that_keeps_dying_is_not_started_for_ever(sweep, store, monkeypatch):
    monkeypatch.setenv("WORKERS", "cpu")
    monkeypatch.setattr(lottery, "work", die)
    with pytest.raises(workers.WorkerError, match="died"):
        lt.run(sweep)


def die(*_):
    os._exit(9)


@pytest.mark.parametrize("words", ["cuda:99", "gpu", ","])
def test_devices_that_are_not_there_are_named(words, monkeypatch, sweep, store):
    monkeypatch.setenv("WORKERS", words)
    with pytest.raises(ValueError, match="comma-separated list of cpu"):
        lt.run(sweep)


def test_a_scheduler_that_does_not_answer_is_named(monkeypatch, sweep, store):
    monkeypatch.setenv("SCHEDULER", "tcp://127.0.0.1:9")
    monkeypatch.setattr(workers, "TIMEOUT", "1s")
    with pytest.raises(workers.WorkerError, match=r"does not answer.*dask scheduler"):
        lt.run(sweep)
