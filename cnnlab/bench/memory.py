"""The memory that one call needs, above what is in use before it."""

import ctypes
from collections.abc import Callable
from pathlib import Path

import torch


def peak_bytes(call: Callable[[], object], device: torch.device) -> int | None:
    """The most memory a call takes at once; None where that cannot be measured.

    On CUDA what torch's allocator gives out. On a CPU the growth of the whole process, so that what torch
    does not see counts too: the libraries' scratch memory, what malloc holds back. For this the kernel's
    high-water mark is set back and freed memory returned to it, which takes Linux and glibc.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    if device.type != "cpu":
        return None
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (AttributeError, OSError, TypeError):
        return None
    before = _process_bytes("VmRSS")
    call()
    return max(0, _process_bytes("VmHWM") - before)


def _process_bytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))
