"""Where a sweep's trainings run: in this process, in one process per device, or on any `concurrent.futures.Executor`.

`WORKERS=cuda:0,cuda:1` starts a process per device named (`WORKERS=cpu,cpu` shares the processor's cores among two).
`SCHEDULER=tcp://host:8786` uses a dask.distributed cluster, whose workers must see the same store and data folders.
"""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context, parent_process
from typing import Any

import torch

from lt_utils import data, store

ATTEMPTS = 4  # at a task whose worker dies
TIMEOUT = "20s"  # for a scheduler to answer


class WorkerError(RuntimeError):
    """Workers can't be had, or keep dying; the message says what to do."""


class InProcess(Executor):
    """Does a task at once, in this process."""

    def submit(self, function: Callable, /, *arguments: Any, **named: Any) -> Future:
        """A future that is done."""
        future = Future()
        try:
            future.set_result(function(*arguments, **named))
        except Exception as error:
            future.set_exception(error)
        return future


@dataclass
class Worker:
    """A place for one task at a time."""

    device: str | None  # None: the first GPU of the machine where it runs, or its processor
    make: Callable[[], Executor]  # starts the executor, and starts it again when it broke
    threads: int | None = None  # for a CPU that is shared
    executor: Executor | None = None
    environment: dict[str, str] = field(default_factory=dict)

    def submit(self, function: Callable, *arguments: Any) -> Future:
        """Have `function(environment, device, threads, *arguments)` done."""
        for _ in range(2):
            self.executor = self.executor or self.make()
            try:
                return self.executor.submit(function, self.environment, self.device, self.threads, *arguments)
            except BrokenExecutor:
                self.executor = None
        raise WorkerError("a worker process can't be started: look for what ends it (often memory).")


def devices(words: str) -> list[str]:
    """The devices of `WORKERS`. ValueError for one that isn't there."""
    names = [word.strip() for word in words.split(",") if word.strip()]
    there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    wrong = [name for name in names if name not in there]
    if wrong or not names:
        raise ValueError(f"WORKERS={words!r}: give a comma-separated list of {', '.join(there)}, for example cpu,cpu.")
    return names


def end_with_parent() -> None:
    """End this worker process as soon as the one that started it is gone, perhaps killed. Else it would go on for hours
    with a training that nobody waits for, beside the workers of the next."""

    def watch() -> None:
        parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def pool(device: str | None = None, executor: Executor | None = None) -> Iterator[list[Worker]]:
    """The workers of a sweep: those of `executor`, else what `WORKERS` or `SCHEDULER` say, else this process."""
    shared = {"LT_STORE": str(store.folder().resolve()), "LT_DATA": str(data.folder().resolve())}
    words, scheduler = os.environ.get("WORKERS"), os.environ.get("SCHEDULER")
    if executor:
        number = getattr(executor, "_max_workers", None) or 1
        yield [Worker(device, lambda: executor, executor=executor, environment=shared) for _ in range(number)]
    elif scheduler:
        with _dask(scheduler) as (cluster, number):
            yield [Worker(None, lambda: cluster, executor=cluster, environment=shared) for _ in range(number)]
    elif words:
        names = devices(words)
        share = max(1, torch.get_num_threads() // max(1, names.count("cpu")))
        context = get_context("spawn")  # CUDA doesn't survive a fork
        process = partial(ProcessPoolExecutor, 1, context, end_with_parent)
        own = [Worker(name, process, share, environment=shared) for name in names]
        try:
            yield own
        finally:
            for worker in own:
                if worker.executor:
                    worker.executor.shutdown(cancel_futures=True)
    else:
        yield [Worker(device, InProcess)]


@contextmanager
def _dask(address: str) -> Iterator[tuple[Executor, int]]:
    """An executor on a running dask.distributed cluster, and the number of its workers."""
    from distributed import Client

    try:
        client = Client(address, timeout=TIMEOUT)
    except (OSError, ValueError) as error:
        raise WorkerError(f"SCHEDULER={address} does not answer ({error}): start `dask scheduler` there.") from error
    with client:
        number = len(client.scheduler_info(n_workers=-1)["workers"])
        if not number:
            raise WorkerError(f"SCHEDULER={address} has no workers: start `dask worker {address} --nthreads 1`.")
        yield client.get_executor(pure=False, retries=ATTEMPTS), number
