"""How many runs this machine takes at a time, and what each of them gets."""

from typing import NamedTuple

from cnnlab.parallel.machine import cores


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
