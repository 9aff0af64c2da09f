"""How a machine trains fastest, and how long a run takes there: short measurements, kept in `speed.json` in the store.

A measurement holds for a device, a PyTorch, a network, a kind of training and a precision, until there are more threads
than it had to choose from. It chooses the size of the stack and, on a CPU, the number of threads; what finished runs
really took then takes its place in the estimates. Beside other work that fills the cores, two threads may take ten
times as long as one: what was measured then is measured again.
"""

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import psutil
import torch

from lt_utils import data, store
from lt_utils.networks import NETWORKS, Network, initial_weights, title
from lt_utils.recording import ORDINARY
from lt_utils.runs import Run
from lt_utils.trainees import DTYPES, Start, Trainee, trainee_of
from lt_utils.training import CONV_BATCH_CPU, batches, evaluation_iterations, step, step_of

STACKS = {"dense": (16, 32, 64), "conv": (1, 4)}  # what is tried on a CPU; a GPU takes what fits its memory
GPU_STACK = 512
WORTH_MEASURING = 2e12  # FLOP of a group of runs: ten seconds or more, where measuring takes a few seconds
TELLING = 8  # networks in a stack; a network of a smaller one takes longer
SECONDS = 0.4  # of one measurement, after a step to warm up
LISTENING = 0.3  # seconds before it, in which others' work is noticed
BUSY = 25  # % of the processor that others may take
ASSUMED = {"cpu": 1e11, "cuda": 5e13}  # FLOP/s before anything is measured


@dataclass(frozen=True)
class Plan:
    """How to train runs of one kind, and what a network-step then takes."""

    stack: int
    threads: int
    seconds: float  # per network-step
    of_threads: int  # that there were to choose from: a worker's may be few
    alone: bool = True  # whether the threads were chosen while nothing else filled the processor


def flops(network: Network, batch: int, backward: bool = True) -> int:
    """Floating-point operations of a network-step (or of a forward pass) on `batch` images: two per multiplication and
    addition of the matrix products; the gradient of the images is not computed."""
    products = [math.prod(layer.shape) * pixels for layer, pixels in zip(network.layers, network.pixels)]
    return 2 * batch * (3 * sum(products) - products[0] if backward else sum(products))


def memory(run: Run) -> int:
    """Bytes that a network of a run takes in a stack: its weights with what the optimiser and the readout keep of them,
    and the activations of a batch."""
    network = NETWORKS[run.network]
    return 4 * (10 * network.weights + 3 * max(run.batch, CONV_BATCH_CPU) * network.activations)


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that a device's memory did not suffice; a CPU's says so in words only."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


def stack_limit(run: Run, device: str) -> int:
    """How many networks of a run fit the memory that is free now."""
    if device.startswith("cuda"):
        torch.cuda.empty_cache()  # what PyTorch keeps of earlier stacks would count as taken
        free, _ = torch.cuda.mem_get_info(device)
    else:
        free = psutil.virtual_memory().available
    return max(1, int(0.6 * free / memory(run)))


def sample(run: Run, networks: int, device: str) -> tuple[list[Run], Trainee]:
    """A stack to measure with: half of the weights of every network are trained; learned masks come in the paper's four
    variants a seed, which share their random numbers."""
    learned = run.kind == "learned"
    seeds = [run.seed + (i // 4 if learned else i) for i in range(networks)]
    runs = [replace(run, seed=seed, dwr=learned and i % 2 == 1) for i, seed in enumerate(seeds)]
    start = [w.to(device).expand(networks, *w.shape).clone() for w in initial_weights(run.network, run.seed)]
    masks = [torch.rand(w.shape, device=device) < 0.5 for w in start]
    return runs, trainee_of(runs, Start(start, masks))


def stepper(run: Run, networks: int, device: str, recorded: bool = True) -> Iterator[int]:
    """The project's own training, without end: each `next` does a step of `networks` networks. Not `recorded`: without
    a GPU's recording of the step."""
    runs, trainee = sample(run, networks, device)
    split = data.load(NETWORKS[run.network].dataset, device, DTYPES[run.precision]).train
    per_epoch = len(split.labels) // run.batch
    advance = step_of(run, trainee, split) if recorded else partial(step, run, trainee, split)
    for iteration in itertools.count():
        epoch, nth = divmod(iteration, per_epoch)
        if nth == 0:
            order = batches(runs, epoch, len(split.labels), torch.device(device))
        advance(order[:, nth * run.batch : (nth + 1) * run.batch])
        yield networks


def measure(loop: Iterator[int], device: str, seconds: float = SECONDS) -> float:
    """Seconds per network-step of a loop, over about `seconds`."""

    def now() -> float:
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        return time.perf_counter()

    began, steps = now(), 0
    while steps == 0 or now() - began < seconds:
        steps += next(loop)
    return (now() - began) / steps


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Compute with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def plan(runs: list[Run], device: str) -> Plan:
    """How to train a group of runs of one `stack_key`: measured before, measured now, or, if they are little work or on
    a GPU, assumed."""
    run, known = runs[0], _known().get(_name(runs[0], device))
    if known and _holds(known):
        return replace(known, stack=min(known.stack, stack_limit(run, device)))
    if device.startswith("cuda") or _work(runs) < WORTH_MEASURING or run.kind == "found":
        return assumed(run, device)
    return measured(run, device)


def measured(run: Run, device: str) -> Plan:
    """The fastest plan for a run by a short measurement, which is kept; on a GPU that of the largest stack that fits,
    once its step is recorded."""
    fits, cuda, tried = stack_limit(run, device), device.startswith("cuda"), []
    sizes = (GPU_STACK,) if cuda else STACKS[NETWORKS[run.network].layers[0].role]
    numbers = list(dict.fromkeys((torch.get_num_threads(), max(1, torch.get_num_threads() // 2))))[: 1 if cuda else 2]
    alone = len(numbers) == 1 or psutil.cpu_percent(LISTENING) < BUSY
    for number in numbers:
        for stack in [size for size in sizes if size <= fits] or [min(sizes[0], fits)]:
            with threads(number):
                loop = stepper(run, stack, device)
                for _ in range(ORDINARY + 1 if cuda else 1):
                    next(loop)
                tried.append(Plan(stack, number, measure(loop, device), numbers[0], alone))
    best = min(tried, key=lambda plan: plan.seconds)
    note(run, device, best)
    return best


def _holds(plan: Plan) -> bool:
    """Whether a measurement had as many threads to choose from as there are now, and the processor for itself."""
    return plan.alone and plan.of_threads >= torch.get_num_threads()


def _work(runs: list[Run]) -> int:
    return sum(run.iterations for run in runs) * flops(NETWORKS[runs[0].network], runs[0].batch)


def assumed(run: Run, device: str) -> Plan:
    """A plan from nothing but the arithmetic."""
    kind = device.split(":", maxsplit=1)[0]
    stack = GPU_STACK if kind == "cuda" else STACKS[NETWORKS[run.network].layers[0].role][-1]
    seconds = flops(NETWORKS[run.network], run.batch) / ASSUMED[kind]
    number = torch.get_num_threads()
    return Plan(min(stack, stack_limit(run, device)), number, seconds, number)


def estimate(run: Run, device: str, threads: int | None = None) -> float:
    """Seconds that a run will take, its evaluations included, as far as is known; on a worker's few `threads` so much
    longer than on those that were measured."""
    network, known = NETWORKS[run.network], _known().get(_name(run, device)) or assumed(run, device)
    images = run.test_images if run.kind == "found" else 5_000 * (len(evaluation_iterations(run)) + 3)
    evaluating = images / run.batch * flops(network, run.batch, False) / flops(network, run.batch)
    slower = max(1.0, known.threads / threads) if threads else 1.0
    return slower * known.seconds * (evaluating + (0 if run.kind == "found" else run.iterations))


def unmeasured(runs: Iterable[Run], device: str) -> list[list[Run]]:
    """Runs whose speed here is only assumed although they are much work, grouped as they are measured."""
    known, groups = _known(), {}
    for run in runs:
        name = _name(run, device)
        if run.kind != "found" and not (name in known and _holds(known[name])):
            groups.setdefault(name, []).append(run)
    return [group for group in groups.values() if _work(group) >= WORTH_MEASURING]


def measure_all(runs: Iterable[Run], device: str, say: Callable[[str], None]) -> None:
    """Measure what of `runs` is much work and has not been measured on this machine, and say so: seconds a network."""
    for group in unmeasured(runs, device):
        run = group[0]
        does = "learns masks of" if run.kind == "learned" else "trains"
        say(f"measuring how fast this machine {does} {title(run.network)} ({run.precision}), once")
        try:
            measured(run, device)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            say("its memory does not suffice: what follows is assumed")


def learn(runs: list[Run], device: str, seconds: float) -> None:
    """Correct what is known by what a stack of finished runs took."""
    run, known = runs[0], _known().get(_name(runs[0], device))
    if not known and device.startswith("cuda") and _work(runs) >= WORTH_MEASURING:
        known = assumed(run, device)
    few = known and len(runs) < min(known.stack, TELLING)
    if not known or few or run.kind == "found" or _work(runs) < WORTH_MEASURING:
        return
    expected = estimate(run, device) / known.seconds
    note(run, device, replace(known, seconds=seconds / len(runs) / expected))


def note(run: Run, device: str, plan: Plan) -> None:
    """Keep a measurement."""
    known = _known() | {_name(run, device): plan}
    store.write_json(_path(), {name: asdict(plan) for name, plan in sorted(known.items())})


def _path() -> Path:
    return store.folder() / "speed.json"


def _known() -> dict[str, Plan]:
    try:
        return {name: Plan(**values) for name, values in store.read_json(_path()).items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # none yet, or damaged: measured again
        return {}


def _name(run: Run, device: str) -> str:
    kind = "learned" if run.kind == "learned" else "train"
    return f"{store.device_name(device)}, torch {torch.__version__}: {run.network}, {kind}, {run.precision}"
