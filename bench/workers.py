"""What it costs and gains to sweep on workers: the same sweep in this process, in worker processes, and on a
dask.distributed cluster of this machine.

    python -m bench.workers

A row per way in results/bench/workers.csv: seconds for the whole sweep with the workers' start, and for a second sweep
on workers that have started; and what a training of one iteration takes, nearly all of which is overhead.
"""

import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context

import pandas as pd
import torch

from lt_utils import data, lottery, store, tables
from lt_utils.notebook import results_folder
from lt_utils.profiles import settings
from lt_utils.runs import sweep

TRAININGS, ITERATIONS = 32, 600


@contextmanager
def way(name: str) -> Iterator[tuple[Executor | None, int]]:
    """An executor and the number of its workers."""
    kind, _, number = name.partition(" x ")
    workers = int(number or 1)
    os.environ["OMP_NUM_THREADS"] = str(max(1, torch.get_num_threads() // workers))
    if kind == "in process":
        yield None, 1
    elif kind == "process":
        with ProcessPoolExecutor(workers, get_context("spawn")) as executor:
            yield executor, workers
    else:
        from distributed import Client, LocalCluster

        cluster = LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None)
        with cluster, Client(cluster) as client:
            yield client.get_executor(pure=False), workers


def timed(executor: Executor | None, seeds: range, iterations: int) -> float:
    """Seconds of a sweep of dense trainings, one per seed."""
    runs = sweep(settings("smoke", seeds=list(seeds), iterations=iterations, eval_every=iterations), round=[0])
    began = time.perf_counter()
    lottery.execute(runs, executor=executor)
    return time.perf_counter() - began


def main() -> None:
    """Measure, print, and write."""
    rows = []
    data.load("mnist")
    for name in ("in process", "process x 1", "process x 2", "dask x 1", "dask x 2"):
        with tempfile.TemporaryDirectory() as folder, way(name) as (executor, workers):
            os.environ["LT_STORE"] = folder
            if executor:
                executor._max_workers = workers
            first = timed(executor, range(TRAININGS), ITERATIONS)
            second = timed(executor, range(100, 100 + TRAININGS), ITERATIONS)
            empty = timed(executor, range(200, 200 + TRAININGS), 1)
        rows.append(
            {
                "way": name,
                "threads per worker": 1 if name.startswith("dask") else max(1, torch.get_num_threads() // workers),
                "first sweep s": first,
                "second sweep s": second,
                "ms per training of one iteration": 1000 * empty / TRAININGS,
                "trainings": TRAININGS,
                "iterations": ITERATIONS,
                "machine": f"{store.device_name('cpu')}, torch {torch.__version__}",
            }
        )
        print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    table["x in process"] = table["second sweep s"][0] / table["second sweep s"]
    tables.write(results_folder("bench") / "workers.csv", table.round(3))
    print(table.round(3).to_string(index=False))


if __name__ == "__main__":
    main()
