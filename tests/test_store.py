"""The store survives kills at any moment, two processes at once, damage, a full disk; nothing is lost or done twice."""

import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

import lt_utils as lt
from lt_utils import lottery, recording, speed, starts
from lt_utils import store as run_store
from lt_utils.data import ROOT
from lt_utils.progress import duration
from lt_utils.runs import Run

SWEEP = """
import lt_utils as lt
from lt_utils import lottery, store
real = lottery._do
def told(runs, *rest):
    real(runs, *rest)
    with open({log!r}, "a") as log:
        log.write("".join(run.key + "\\n" for run in runs))
lottery._do = told
s = lt.settings("smoke", seeds=2, rounds=2, iterations=60, eval_every=20)
runs = [*lt.sweep(s, criterion=["large_final", "random"]), *lt.sweep(s, kind="learned", mask1=["rewind"])]
table = lt.run(runs)
table.drop(columns=["seconds", "commit"]).to_csv({table!r}, index=False)
"""


def sweep_process(folder, store, name="table"):
    """A process that does a sweep of 12 trainings in `store`; it notes what it trained to its end."""
    code = SWEEP.format(log=str(folder / f"{name}.log"), table=str(folder / f"{name}.csv"))
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "LT_STORE": str(store),
        "LT_CHECKPOINT": "0.05",
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output[-3000:]
    return output


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The folder of a sweep that was left alone; its file `seconds` says how long that took."""
    folder, began = tmp_path_factory.mktemp("undisturbed"), time.monotonic()
    finish(sweep_process(folder, folder / "store"))
    (folder / "seconds").write_text(str(time.monotonic() - began))
    return folder


def entries(store):
    return {path.parent.name: json.loads(path.read_text()) for path in store.glob("??/*/run.json")}


def test_kill_9_at_random_moments_leaves_the_same_tables_and_repeats_nothing(tmp_path, undisturbed):
    chance, kills = random.Random(0), 0
    store, seconds = tmp_path / "store", float((undisturbed / "seconds").read_text())
    while True:
        before = set(entries(store))
        process = sweep_process(tmp_path, store)
        try:
            # from before PyTorch is imported to the middle of writing; later and later, so that it comes to an end
            process.wait(seconds * (0.15 + 0.06 * kills) * chance.uniform(0.85, 1.15))
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
        assert before <= set(entries(store))  # nothing that was finished is lost
    finish(process)
    assert kills >= 4
    assert (tmp_path / "table.csv").read_bytes() == (undisturbed / "table.csv").read_bytes()
    done = (tmp_path / "table.log").read_text().split()
    assert len(done) == len(set(done))  # nothing that was finished is repeated
    assert not list(store.glob("checkpoints/*.safetensors"))


def test_a_killed_training_goes_on_from_its_checkpoint(store, monkeypatch):
    """The budget is over at once: a checkpoint is left, and nothing else; then the training goes on from there."""
    run = Run(iterations=40, learning_rate=1.2e-3, eval_every=10)
    steps = []
    real = lottery.train

    def counting(runs, start, dataset, tick, checkpoints):
        return real(runs, start, dataset, steps.append, checkpoints)

    monkeypatch.setattr(lottery, "train", counting)
    monkeypatch.setattr(lottery, "CHECKPOINT", 0.0)
    monkeypatch.setattr(lottery._Checkpoints, "due", lambda self: True)
    real_save = run_store.save_checkpoint

    def saving(run, iteration, tensors, seconds):
        real_save(run, iteration, tensors, seconds + 1000)
        if iteration == 25:
            raise KeyboardInterrupt

    monkeypatch.setattr(run_store, "save_checkpoint", saving)
    with pytest.raises(KeyboardInterrupt):
        lt.run([run])
    assert run_store.checkpoint_iteration(run) == 25
    assert not run_store.metrics(run)
    monkeypatch.setattr(run_store, "save_checkpoint", real_save)
    steps.clear()
    after = lt.run([run])
    assert sum(steps) == 15
    assert after["seconds"].item() > 1000  # those before the checkpoint count
    assert not list(store.glob("checkpoints/*.safetensors"))
    run_store._entry(run).joinpath("run.json").unlink()
    monkeypatch.undo()
    os.environ["LT_STORE"] = str(store)
    whole = lt.run([run])
    assert whole["test_accuracy"].equals(after["test_accuracy"])
    assert whole["best_iteration"].equals(after["best_iteration"])


def test_two_processes_on_one_store_share_the_work(tmp_path, undisturbed):
    store = tmp_path / "store"
    both = [sweep_process(tmp_path, store, name) for name in ("one", "other")]
    for process in both:
        finish(process)
    tables = [(tmp_path / f"{name}.csv").read_bytes() for name in ("one", "other")]
    assert tables == [(undisturbed / "table.csv").read_bytes()] * 2
    done = [
        key
        for name in ("one", "other")
        if (log := tmp_path / f"{name}.log").exists()
        for key in log.read_text().split()
    ]
    assert sorted(done) == sorted(set(done))  # nothing is done twice
    assert set(done) == set(entries(store))


def test_stores_merge_by_copying(tmp_path, undisturbed):
    """Half of the entries in one store, half in another, some in both: together they are the whole."""
    whole, keys = undisturbed / "store", sorted(entries(undisturbed / "store"))
    merged = tmp_path / "merged"
    for some in (keys[:8], keys[4:]):
        for key in some:
            shutil.copytree(whole / key[:2] / key, merged / key[:2] / key, dirs_exist_ok=True)
    finish(sweep_process(tmp_path, merged))
    assert not (tmp_path / "table.log").exists()  # nothing was left to train
    assert (tmp_path / "table.csv").read_bytes() == (undisturbed / "table.csv").read_bytes()


@pytest.mark.parametrize("name", ["run.json", "weights.safetensors"])
@pytest.mark.parametrize("damage", ["truncated", "bit flipped", "empty"])
def test_a_damaged_entry_is_set_aside_said_and_done_again(store, tiny, capsys, name, damage):
    runs = lt.sweep(tiny, round=[0])
    table = lt.run(runs)
    path = run_store._entry(runs[0]) / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes({"truncated": content[: len(content) // 2], "bit flipped": content, "empty": b""}[damage])
    starts.finished_weights.cache_clear()
    later = lt.run(lt.sweep(tiny, round=[0, 1]))
    said = [line for line in capsys.readouterr().out.splitlines() if "damaged" in line]
    assert len(said) == 1
    assert "set aside" in said[0]
    assert len(list((store / "damaged").iterdir())) == 1
    dense = later[later["round"] == 0].reset_index(drop=True)[table.columns]
    assert dense.drop(columns="seconds").equals(table.drop(columns="seconds"))
    assert len(later) == 4


def test_a_damaged_checkpoint_is_set_aside_and_the_training_starts_anew(store, capsys):
    run = Run(iterations=12, learning_rate=1.2e-3, eval_every=6)
    run_store.save_checkpoint(run, 5, {"value.0": torch.zeros(3)}, 1.0)
    path = run_store._checkpoint(run)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert lt.run([run])["diverged"].tolist() == [False]
    assert "damaged" in capsys.readouterr().out


def full_disk(*_):
    raise OSError(28, "No space left on device")


def test_a_full_disk_says_what_to_do_and_what_was_finished_stays(store, tiny, monkeypatch):
    first = lt.run(lt.sweep(tiny, round=[0]))
    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(run_store.StoreError, match=r"No space left on device.*free some disk space.*LT_STORE.*is kept"):
        lt.run(lt.sweep(tiny))
    monkeypatch.undo()
    os.environ["LT_STORE"] = str(store)
    assert not list(store.rglob("*.part"))
    assert lt.run(lt.sweep(tiny, round=[0])).equals(first)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_really_is_full(tmp_path):
    with pytest.raises(run_store.StoreError, match="free some disk space"):
        run_store.write(tmp_path / "x", lambda _: Path("/dev/full").write_text("x"))


def test_a_store_that_cannot_be_written_says_so(tmp_path, monkeypatch, tiny):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("LT_STORE", str(tmp_path / "file" / "store"))
    with pytest.raises(run_store.StoreError, match=r"can't be read.*LT_STORE"):
        lt.run(lt.sweep(tiny, round=[0]))


def test_a_read_only_store_says_so_and_its_results_are_still_found(store, tiny, monkeypatch):
    first = lt.run(lt.sweep(tiny, round=[0]))
    real = os.open

    def read_only(path, flags, *rest, **named):
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(30, "Read-only file system", str(path))
        return real(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", read_only)
    assert lt.run(lt.sweep(tiny, round=[0])).equals(first)
    with pytest.raises(run_store.StoreError, match=r"Read-only file system.*make it writable.*LT_STORE"):
        lt.run(lt.sweep(tiny))


def test_whoever_can_read_the_stores_folder_can_read_its_files(store, tiny):
    lt.run(lt.sweep(tiny))
    files = [path for path in store.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert {path.name for path in files} >= {"run.json", "mask.safetensors", "weights.safetensors"}
    assert [path for path in files if path.stat().st_mode & 0o666 != path.parent.stat().st_mode & 0o666] == []


def test_no_pickle_is_ever_loaded():
    for path in (ROOT / "lt_utils").glob("*.py"):
        text = path.read_text()
        assert not any(word in text for word in ("torch.load", "pickle", "joblib", "allow_pickle")), path


def test_what_a_killed_process_left_half_written_goes_after_a_while(store):
    (store / "ab").mkdir(parents=True)
    old, young = store / "ab" / "run.json.1.part", store / "ab" / "run.json.2.part"
    for path in (old, young):
        path.write_text("{")
    os.utime(old, (time.time() - 7200,) * 2)
    run_store.write_json(store / "ab" / "run.json", {"a": 1})
    assert run_store.read_json(store / "ab" / "run.json") == {"a": 1}
    assert not old.exists()
    assert young.exists()


def test_a_budget_stops_in_time_says_what_is_left_and_the_next_call_goes_on(store, monkeypatch, capsys):
    s = lt.settings("smoke", seeds=1, rounds=2, iterations=2000, eval_every=500)
    runs = lt.sweep(s, criterion=["large_final"])
    ticks = itertools.count()  # a clock that goes on by one whenever it is looked at: once per step
    clock = SimpleNamespace(time=lambda: float(next(ticks)), monotonic=time.monotonic, sleep=time.sleep)
    monkeypatch.setenv("LT_DEADLINE", "900")
    with monkeypatch.context() as patch:
        patch.setattr(lottery, "time", clock)
        left = lt.execute(runs)
    assert next(ticks) < 920
    assert "out of time" in capsys.readouterr().err
    stood = [run_store.checkpoint_iteration(run) for run in left.values()]
    assert len(stood) == 3
    assert 800 < stood[0] < 900
    assert stood[1:] == [0, 0]
    monkeypatch.delenv("LT_DEADLINE")
    assert not lt.execute(runs)


def test_what_another_process_is_doing_is_waited_for_no_longer_than_the_budget(store, tiny, monkeypatch, capsys):
    runs = lt.sweep(tiny, round=[0])
    monkeypatch.setattr(lottery, "PATIENCE", 0.01)
    monkeypatch.setenv("LT_DEADLINE", str(time.time() + 0.2))
    with run_store.claimed(runs):  # by a process that has stopped
        left = lt.execute(runs)
    assert set(left) == {run.key for run in runs}
    said = capsys.readouterr().err
    assert said.count("another process is doing what is next") == 1
    assert f"out of time: {len(runs)} trainings are left" in said
    monkeypatch.delenv("LT_DEADLINE")
    assert not lt.execute(runs)


def test_a_sweep_says_beforehand_what_is_new_what_is_found_and_how_long_it_takes(store, tiny, capsys):
    lt.run(lt.sweep(tiny, round=[0]))
    capsys.readouterr()
    lt.run(lt.sweep(tiny))
    assert "4 trainings are new, 2 found; about" in capsys.readouterr().err
    lt.run(lt.sweep(tiny))
    assert "trainings" not in capsys.readouterr().err


def test_speeds_are_measured_once_and_kept(store, monkeypatch):
    monkeypatch.setattr(speed, "WORTH_MEASURING", 0)
    run = Run(learning_rate=1.2e-3, iterations=20, eval_every=10)
    first = speed.plan([run], "cpu")  # one run asks, as many might
    assert first.stack in speed.STACKS["dense"]
    assert first.seconds > 0
    monkeypatch.setattr(speed, "measure", None)  # would fail if called
    assert speed.plan([run], "cpu") == first
    (store / "speed.json").write_text("{")
    assert speed.estimate(run, "cpu") > 0


def test_what_a_worker_measured_with_one_thread_is_measured_again_where_there_are_more(store, monkeypatch):
    monkeypatch.setattr(speed, "WORTH_MEASURING", 0)
    monkeypatch.setattr(speed, "measure", lambda *_: 1.0)
    run = Run(learning_rate=1.2e-3, iterations=20, eval_every=10)
    for number, remeasured in ((1, True), (2, True), (1, False)):
        with speed.threads(number):
            assert bool(speed.unmeasured([run], "cpu")) == remeasured
            plan = speed.plan([run], "cpu")
    assert (plan.threads, plan.of_threads) == (2, 2)  # `work` takes no more of them than there are
    assert speed.estimate(run, "cpu", threads=1) == 2 * speed.estimate(run, "cpu") == 2 * speed.estimate(run, "cpu", 4)


def test_what_was_measured_beside_other_work_is_measured_again_until_it_is_not(store, monkeypatch):
    """Else a training started beside another would choose few threads for all that come after."""
    monkeypatch.setattr(speed, "WORTH_MEASURING", 0)
    run, found = Run(learning_rate=1.2e-3, iterations=20, eval_every=10), []
    for busy, seconds in ((90, {1: 1.0, 2: 9.0}), (5, {1: 2.0, 2: 1.0}), (90, {1: 1.0, 2: 9.0})):
        monkeypatch.setattr(psutil, "cpu_percent", lambda *_, busy=busy: busy)
        monkeypatch.setattr(speed, "measure", lambda *_, seconds=seconds: seconds[torch.get_num_threads()])
        with speed.threads(2):
            found.append(speed.plan([run], "cpu").threads)
    assert found == [1, 2, 2]


def test_what_is_much_work_is_measured_before_it_is_said_how_long_it_takes(store, tiny, monkeypatch, capsys):
    runs = lt.sweep(tiny, round=[0])
    assert not speed.unmeasured(runs, "cpu")  # little work
    monkeypatch.setattr(speed, "WORTH_MEASURING", 0)
    monkeypatch.setattr(speed, "measure", lambda *_: 3600.0)
    lt.run(runs)
    said = capsys.readouterr().err
    assert said.index("measuring how fast this machine trains FC") < said.index("2 trainings are new")
    assert re.search(r"about [\d,.]+ h\n", said)  # as was measured
    assert not speed.unmeasured(runs, "cpu")


def test_a_gpu_is_measured_with_the_largest_stack_that_fits_once_its_step_is_recorded(store, monkeypatch):
    steps = []

    def loop(run, stack, device):
        while True:
            steps.append(stack)
            yield stack

    monkeypatch.setattr(speed, "stack_limit", lambda *_: 70)
    monkeypatch.setattr(speed, "stepper", loop)
    monkeypatch.setattr(speed, "measure", lambda *_: len(steps))
    monkeypatch.setattr(run_store, "device_name", str)
    run = Run(learning_rate=1.2e-3, iterations=50_380)
    (group,) = speed.unmeasured([run], "cuda:0")
    speed.measure_all(group, "cuda:0", print)
    assert set(steps) == {70} and len(steps) > recording.ORDINARY
    assert speed.plan(group, "cuda:0") == speed.Plan(70, torch.get_num_threads(), len(steps), torch.get_num_threads())


def test_what_an_earlier_stack_left_in_the_cache_of_a_gpu_is_free_for_the_next(monkeypatch):
    free = [1e9]
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free[-1], 80e9))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: free.append(8e9))
    assert speed.stack_limit(Run(), "cuda:0") == int(0.6 * 8e9 / speed.memory(Run()))


def test_where_memory_does_not_suffice_to_measure_it_is_said_and_the_rest_assumed(store, monkeypatch, capsys):
    def full(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(speed, "stepper", full)
    run = Run(learning_rate=1.2e-3, iterations=50_380)
    speed.measure_all([run], "cpu", print)
    assert "its memory does not suffice" in capsys.readouterr().out
    assert speed.estimate(run, "cpu") > 0


def test_durations_in_words():
    assert [duration(s) for s in (40, 720, 12_600, 4_320_000)] == ["40 s", "12 min", "3.5 h", "1,200 h"]


def test_flops_and_memory_of_the_networks():
    """By hand: FC has 266,200 weights, used three times a step but for the gradient of the images."""
    assert speed.flops(lt.NETWORKS["fc"], 60) == 2 * 60 * (3 * 266_200 - 235_200)
    conv2 = 1024 * 9 * (3 * 64 + 64 * 64) + 16 * 16 * 64 * 256 + 256 * 256 + 2560
    assert speed.flops(lt.NETWORKS["conv2"], 1, backward=False) == 2 * conv2
    assert speed.memory(Run(network="conv2")) > speed.memory(Run()) > 4 * 266_200 * 8
    assert speed.stack_limit(Run(), "cpu") > 1


def test_where_memory_is_scarce_stacks_are_small(store, monkeypatch):
    monkeypatch.setattr(speed, "WORTH_MEASURING", 0)
    monkeypatch.setattr(speed, "stack_limit", lambda *_: 3)
    run = Run(learning_rate=1.2e-3, iterations=20, eval_every=10)
    assert speed.plan([run], "cpu").stack == 3
    assert speed.plan([run], "cpu").stack == 3
