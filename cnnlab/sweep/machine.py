"""How many runs this machine takes at a time, and what each of them gets."""

import os
from pathlib import Path
from typing import NamedTuple


class Slot(NamedTuple):
    """A place for one job: CPU threads, and the one GPU it sees, as CUDA_VISIBLE_DEVICES names it."""

    threads: int
    gpu: str | None = None


def slots(count: int, *, jobs: int | None, gpus: list[str], jobs_per_gpu: int) -> list[Slot]:
    """Places for `count` jobs, `jobs` at a time; None: as many as there are GPUs, else cores.

    Many jobs of one thread each beat one job of many threads, so threads are shared out only where there are
    more cores than jobs.

    >>> slots(24, jobs=2, gpus=[], jobs_per_gpu=1) == [Slot(max(1, cores() // 2))] * 2
    True
    >>> [slot.gpu for slot in slots(24, jobs=None, gpus=["0", "1"], jobs_per_gpu=2)]
    ['0', '1', '0', '1']
    """
    at_a_time = jobs or len(gpus) * jobs_per_gpu or cores()
    at_a_time = min(at_a_time, count) if jobs is None else at_a_time
    threads = max(1, cores() // max(1, at_a_time))
    return [Slot(threads, gpus[i % len(gpus)] if gpus else None) for i in range(max(1, at_a_time))]


def gpus() -> list[str]:
    """The accelerators that torch sees, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    count = torch.accelerator.device_count() if torch.accelerator.is_available() else 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return (visible.split(",") if visible else [str(i) for i in range(count)])[:count]


def cores() -> int:
    """Physical cores that affinity and the cgroup's quota leave to this process, counted without torch."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    siblings = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    physical = len({_text(siblings.format(cpu)) or cpu for cpu in allowed})
    quota, _, period = _text("/sys/fs/cgroup/cpu.max").partition(" ")
    return max(1, min(physical, int(quota) // int(period) if quota.isdigit() else physical))


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
