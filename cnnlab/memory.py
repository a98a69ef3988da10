"""Memory of the process or the GPU: its peak, and keeping what was freed."""

import contextlib
import ctypes
import resource
from collections.abc import Callable
from pathlib import Path

import torch

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1  # glibc's malloc.h


def keep_freed_memory() -> None:
    """Have malloc keep freed memory for the next tensor, as torch's allocator does on a GPU.

    glibc gives tensors above 32 MB back to the kernel at once, which then clears every page of the next one:
    a third of the time of a large float32 layer. Elsewhere nothing happens.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(MMAP_THRESHOLD, 2**30)
        libc.mallopt(TRIM_THRESHOLD, 2**31 - 1)


def forget_peak() -> bool:
    """So that the next peak is not an earlier one; whether the process's own could be forgotten."""
    if torch.cuda.is_initialized():  # what is not has no peak, and a run on the CPU needs none
        torch.cuda.reset_peak_memory_stats()
    try:
        ctypes.CDLL(None).malloc_trim(0)  # what is kept would count
        Path("/proc/self/clear_refs").write_text("5")
    except (AttributeError, OSError, TypeError):  # Linux with glibc alone has both
        return False
    return True


def peak_mb(device: torch.device) -> float:
    """The most memory at once: of torch's allocator on a GPU, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # on Linux in kB


def peak_bytes(call: Callable[[], object], device: torch.device) -> int | None:
    """The most memory a call takes at once, above what is in use before it; None where none can tell.

    On CUDA what torch's allocator gives out. On a CPU the growth of the whole process, so that what torch
    does not see counts too: the libraries' scratch memory, what malloc holds back.
    """
    if not forget_peak() and device.type == "cpu":
        return None
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    if device.type != "cpu":
        return None
    before = _process_bytes("VmRSS")
    call()
    return max(0, _process_bytes("VmHWM") - before)


def _process_bytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))
