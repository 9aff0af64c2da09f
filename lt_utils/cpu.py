"""Settings of the process that make training on a CPU fast, and the same bit for bit in any stack; imported before
anything that computes."""

import ctypes
import os
import sys
from pathlib import Path

import torch

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's mallopt


def keep_freed_memory() -> bool:
    """Have glibc keep what is freed. Otherwise it hands a step's gradients, megabytes a network, back to the kernel and
    faults them in again page by page at the next step: up to half of a step's time (FC), a quarter of learning a mask
    in fp32 (Conv2). No memory is mapped, however large, since what is mapped goes back. True where it took."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library
        return False
    return bool(mallopt(M_TRIM_THRESHOLD, 2**31 - 1) and mallopt(M_MMAP_MAX, 0))


def has(*instructions: str) -> bool:
    """Whether the CPU has any of `instructions`, as PyTorch names them; no if it can't tell."""
    known = getattr(torch.cpu, "get_capabilities", dict)()
    return any(known.get(name) for name in instructions)


def same_bits_in_any_stack() -> None:
    """Have MKL, on Intel's processors, add in one order whether it multiplies one pair of matrices or many. Otherwise a
    network's last bits there depend on whether it trains alone. To be called before MKL first multiplies."""
    try:
        intel = "GenuineIntel" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return
    instructions = torch.backends.cpu.get_cpu_capability()
    if intel and instructions in ("AVX2", "AVX512"):
        os.environ.setdefault("MKL_CBWR", f"{instructions},STRICT")


keep_freed_memory()
same_bits_in_any_stack()
# Gradients of well-learnt images fall below the smallest normal number, where a CPU multiplies many times slower: they
# become 0. For the whole process, because only threads that PyTorch starts later inherit this.
torch.set_flush_denormal(True)
