"""The lottery ticket procedure: how a run starts from its parent, and the execution of a sweep in stacks."""

import math
import os
import time
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, wait

import pandas as pd
import torch
from torch import Tensor

from lt_utils import data, speed, store, tables, workers
from lt_utils.networks import NETWORKS
from lt_utils.profiles import fast_precision
from lt_utils.progress import Progress, duration
from lt_utils.runs import Run
from lt_utils.starts import distances, finished_weights, starting_point
from lt_utils.trainees import DTYPES, Start, precisions
from lt_utils.training import Outcome, evaluate, train
from lt_utils.workers import ATTEMPTS, WorkerError

FOUND_STACK = 16  # found supermasks evaluated at once
HURRY = 32  # trainings at most that a worker is given at once when time is short
CHECKPOINT = 120.0  # seconds between two checkpoints of a training
AGAIN = "done again, as others start from networks of theirs that are not kept here"
PATIENCE = 1.0  # seconds between two looks at what another process is doing


class OutOfTime(Exception):
    """The time budget is used up before what is asked for is there; what was done is kept."""


def default_device() -> str:
    """The first GPU, if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def _found(runs: list[Run], start: Start, dataset: data.Dataset) -> list[Outcome]:
    """Evaluate found supermasks: untrained weights under a mask, on the test set."""
    biases = [w.new_zeros(w.shape[:2]) for w in start.weights]
    weights = [w.to(dtype) for w, dtype in zip(start.weights, precisions(runs[0]))]
    _, accuracy = evaluate(runs[0].network, weights, biases, dataset.test.first(runs[0].test_images))
    return [Outcome({"test_accuracy": value}) for value in accuracy.tolist()]


class _Checkpoints:
    """Checkpoints of a stack, a file per network, so that it may go on in another stack; and the end of the budget."""

    def __init__(self, runs: list[Run], device: str, deadline: float) -> None:
        self.runs, self.device, self.deadline = runs, device, deadline
        self.began, self.before = time.monotonic(), 0.0
        self.interval = float(os.environ.get("LT_CHECKPOINT") or CHECKPOINT)
        self.next = time.time() + self.interval

    def load(self) -> tuple[int, dict[str, Tensor]]:
        """Where the stack stood, on its device."""
        if not store.checkpoint_iteration(self.runs[0]):
            return 0, {}
        iterations, states, seconds = zip(*map(store.load_checkpoint, self.runs))
        if len(set(iterations)) > 1:
            raise store.Gone("the checkpoints of a stack differ")
        self.before = sum(seconds) / len(self.runs)
        return iterations[0], {n: torch.stack([s[n] for s in states]).to(self.device) for n in states[0]}

    def due(self) -> bool:
        """Whether the last checkpoint is old, or time is up."""
        return time.time() > min(self.next, self.deadline)

    def seconds(self) -> float:
        """Seconds per network so far, with those before the checkpoint that it goes on from."""
        return self.before + (time.monotonic() - self.began) / len(self.runs)

    def save(self, iteration: int, tensors: dict[str, Tensor]) -> None:
        """Keep where every network stands. Raises OutOfTime if time is up."""
        here, seconds = {name: tensor.detach().cpu() for name, tensor in tensors.items()}, self.seconds()
        for m, run in enumerate(self.runs):
            store.save_checkpoint(run, iteration, {name: tensor[m].clone() for name, tensor in here.items()}, seconds)
        self.next = time.time() + self.interval
        if time.time() > self.deadline:
            raise OutOfTime


def _do(runs: list[Run], device: str, deadline: float) -> None:
    """Train one stack and keep its results. Raises torch.OutOfMemoryError if the stack is too large."""
    checkpoints = _Checkpoints(runs, device, deadline)
    points = [starting_point(run, device) for run in runs]
    weights, masks = ([torch.stack(layer) for layer in zip(*part)] for part in zip(*points))
    dataset = data.load(NETWORKS[runs[0].network].dataset, device, DTYPES[runs[0].precision])
    progress = Progress.current()
    if runs[0].kind == "found":
        outcomes = _found(runs, Start(weights, masks), dataset)
        progress.advance(len(runs))
    else:
        outcomes = train(runs, Start(weights, masks), dataset, progress.advance, checkpoints)
    seconds = checkpoints.seconds()
    for run, outcome, (w, m) in zip(runs, outcomes, points):
        layers = [layer.float().mean().item() * 100 for layer in m]
        kept = 100 * sum(int(layer.sum()) for layer in m) / NETWORKS[run.network].weights
        outcome.metrics = {
            "weights_remaining": kept,
            **{f"layer_{i}_remaining": v for i, v in enumerate(layers)},
            **(distances(run, m, device) if run.kind == "train" else {}),
            **outcome.metrics,
        }
        store.save(run, outcome, w, outcome.masks or m, device, seconds)


def missing(runs: Iterable[Run], weights: bool = False) -> dict[str, Run]:
    """The runs still to be done, with the parents that they need, by key; parents come first. With `weights`, runs
    whose final weights aren't kept are to be done, too."""
    todo: dict[str, Run] = {}

    def visit(run: Run, there: bool) -> None:
        if run.key in todo or (store.metrics(run) and there):
            return
        if run.parent:
            has = store.has_mask if run.canonical.schedule == "ticket" else store.has_weights
            visit(run.parent, has(run.parent))
        todo[run.key] = run

    for run in runs:
        visit(run, there=not weights or store.has_weights(run))
    return todo


def with_results(runs: dict[str, Run]) -> set[str]:
    """The keys of those runs that have results; one that is to be done nevertheless lacks what others start from."""
    return {key for key, run in runs.items() if store.metrics(run)}


def _finished(run: Run, again: set[str]) -> bool:
    return bool(store.metrics(run)) and (run.key not in again or store.has_weights(run))


def work(
    environment: dict[str, str],
    device: str | None,
    threads: int | None,
    runs: list[Run],
    again: set[str],
    deadline: float,
) -> bool:
    """A worker's task: do, in stacks, those of `runs` that are not done and that no other process is doing; those of
    `again` although they are. False if something that they start from was gone. Raises OutOfTime."""
    os.environ.update(environment)
    if threads:
        torch.set_num_threads(threads)
    device = device or default_device()
    with store.claimed(runs) as mine:
        todo = [run for run in mine if not _finished(run, again)]
        try:
            for group in _alike(todo):
                plan = speed.plan(group, device)
                with speed.threads(min(plan.threads, torch.get_num_threads())):
                    _do_all(group, FOUND_STACK if group[0].kind == "found" else plan.stack, device, deadline)
        except store.Gone:
            finished_weights.cache_clear()
            return False
    return True


def _alike(runs: list[Run]) -> list[list[Run]]:
    """Runs in groups that can be trained in one stack: alike, and equally far."""
    groups: dict[tuple, list[Run]] = {}
    for run in runs:
        groups.setdefault((*run.stack_key, store.checkpoint_iteration(run)), []).append(run)
    return list(groups.values())


def _do_all(group: list[Run], size: int, device: str, deadline: float) -> None:
    """Do a group in stacks of `size`, halved whenever the device runs out of memory."""
    while group:
        if time.time() > deadline:
            raise OutOfTime
        try:
            began, resumed = time.monotonic(), store.checkpoint_iteration(group[0])
            _do(group[:size], device, deadline)
            if not resumed:
                speed.learn(group[:size], device, time.monotonic() - began)
            group = group[size:]
        except (RuntimeError, MemoryError) as error:
            if size == 1 or not speed.out_of_memory(error):
                raise
            size //= 2
            torch.cuda.empty_cache()


def _steps(run: Run) -> int:
    return 1 if run.kind == "found" else run.iterations


def execute(
    runs: Iterable[Run], device: str | None = None, executor: Executor | None = None, weights: bool = False
) -> dict[str, Run]:
    """Do what is missing of `runs`, in stacks, on `executor` or as `lt_utils.workers` says. What is finished is kept at
    once; calling again goes on from there. Returns what the time budget (`LT_DEADLINE`) left undone. With `weights`,
    the final weights are wanted, too."""
    runs = list(runs)
    todo, deadline = missing(runs, weights), float(os.environ.get("LT_DEADLINE") or math.inf)
    if todo and os.environ.get("LT_DRAW_ONLY"):
        return todo
    if fast_precision() == "fp32" and any(run.precision == "bf16" for run in todo.values()):
        warnings.warn("this machine has no bf16 and emulates it, slower than fp32: better take fp32.", stacklevel=3)
    with workers.pool(device, executor) as places:
        here = device or default_device()
        found = len({run.key for run in runs} - set(todo))
        steps = sum(_steps(run) - store.checkpoint_iteration(run) for run in todo.values())
        with Progress(steps, f"{len(todo)} trainings") as progress:
            if not places[0].environment and deadline == math.inf:  # in this process, and with time to measure
                speed.measure_all(todo.values(), here, progress.say)
            seconds = sum(speed.estimate(run, here, places[0].threads) for run in todo.values()) / len(places)
            again, about = len(with_results(todo)), f"; about {duration(seconds)}" * bool(todo)
            said = f"{len(todo) - again} trainings are new, {found} found"
            progress.say(said + f", {again} {AGAIN}" * bool(again) + about)
            left = _Sweep(lambda: missing(runs, weights), todo, places, deadline, progress).finish()
            if left:
                progress.say(f"out of time: {len(left)} trainings are left")
    return left


class _Sweep:
    """A sweep on its way: what is still to be done, who is doing what, and how often workers died at it."""

    def __init__(
        self,
        look: Callable[[], dict[str, Run]],
        todo: dict[str, Run],
        places: list[workers.Worker],
        deadline: float,
        progress: Progress,
    ) -> None:
        self.look, self.places, self.deadline, self.progress = look, places, deadline, progress
        self.busy: dict[Future, tuple[workers.Worker, list[Run]]] = {}
        self.failures: dict[str, int] = {}
        self.late = self.told = False
        self._take_up(todo)

    def finish(self) -> dict[str, Run]:
        """Do what is to be done, and return what time did not suffice for."""
        while self.todo or self.busy:
            self._hand_out()
            if not self.busy:
                break
            done, _ = wait(self.busy, return_when=FIRST_COMPLETED)
            progressed = [self._take(future) for future in done]
            if not any(progressed) and not self.late:
                self._wait()
        return self.todo

    def _wait(self) -> None:
        """Look again in a while, if there is time: what is next was gone, or another process is doing it."""
        time.sleep(PATIENCE)
        self.late = time.time() > self.deadline
        self._take_up(self.look())

    def _take_up(self, todo: dict[str, Run]) -> None:
        """Have `todo` to do; some of it is finished, but without the weights that a later run needs."""
        self.todo = todo
        self.again = with_results(todo)

    def _hand_out(self) -> None:
        """Give every free worker a stack."""
        taken = {run.key for _, stack in self.busy.values() for run in stack}
        for place in [p for p in self.places if all(p is not worker for worker, _ in self.busy.values())]:
            stack = [] if self.late else _next(self.todo, taken, len(self.places), by_value=self.deadline < math.inf)
            if stack:
                self.busy[place.submit(work, stack, self.again, self.deadline)] = place, stack
                taken |= {run.key for run in stack}

    def _take(self, future: Future) -> bool:
        """Take what a worker has finished; False if that is nothing."""
        place, stack = self.busy.pop(future)
        whole, done = True, False
        try:
            whole = done = future.result()
        except OutOfTime:
            self.late = True
        except (BrokenExecutor, CancelledError) as error:
            self._died(place, stack, error)
        finished = [run for run in stack if _finished(run, self.again)]
        if len(self.places) > 1 or place.environment:
            self.progress.advance(sum(map(_steps, finished)))
        for run in finished:
            self.todo.pop(run.key, None)
        if done and not finished and not self.told:
            self.progress.say("another process is doing what is next: waiting for it (if it hangs, end it).")
            self.told = True
        if not whole:
            self._take_up(self.look())
        return bool(finished)

    def _died(self, place: workers.Worker, stack: list[Run], error: Exception) -> None:
        """Have a new worker in the place of one that died. WorkerError if that goes on happening."""
        place.executor = None
        self.failures[stack[0].key] = self.failures.get(stack[0].key, 0) + 1
        if self.failures[stack[0].key] == ATTEMPTS:
            why = f"a worker died {ATTEMPTS} times at the same trainings: look for what ends it (often memory)"
            raise WorkerError(f"{why}; what is finished is kept.") from error


def _next(todo: dict[str, Run], taken: set[str], places: int, by_value: bool) -> list[Run]:
    """The next runs for a worker, its share of those that are alike and whose parents are done: by the order in which
    they were asked for if time is short, else by round, as networks of one density train fastest together."""
    ready = [r for r in todo.values() if r.key not in taken and not (r.parent and r.parent.key in todo)]
    if not by_value:
        ready.sort(key=lambda run: (run.stack_key, run.round, run.seed))
    alike = [run for run in ready if run.stack_key == ready[0].stack_key]
    share = math.ceil(len(alike) / places)
    return alike[: min(share, HURRY)] if by_value else alike[:share]


def run(runs: list[Run], device: str | None = None, executor: Executor | None = None) -> pd.DataFrame:
    """Do what is missing of a sweep and return its table, one row per run, sorted.

    Columns: the fields of `Run`; `weights_remaining` in % (and per layer); accuracies in %; the provenance. Numbers are
    rounded as in the tables that are kept. If the time budget ends before the sweep does, the table has the runs that
    are finished.
    """
    execute(runs, device, executor)
    rows = []
    for one in runs:
        entry = store.metrics(one)
        if entry:
            rows.append(one.describe() | entry["metrics"] | entry["provenance"] | {"key": one.key})
    if not rows:
        raise OutOfTime("none of these trainings was finished in time: give a larger BUDGET.")
    if len(rows) < len(runs):
        print(f"{len(rows)} of {len(runs)} runs are done: what follows is of these alone.")
    return tables.rounded(pd.DataFrame(rows).sort_values(list(Run.__annotations__), ignore_index=True))
