"""The launcher of this machine: as many processes at a time as there are GPUs or cores."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import wait
from typing import Literal

from cnnlab.allowed import whole
from cnnlab.config import Config
from cnnlab.parallel.machine import gpus
from cnnlab.parallel.process import Process
from cnnlab.result import Result
from cnnlab.sweep import worker
from cnnlab.sweep.job import Job
from cnnlab.sweep.loop import TICK_S, see_through
from cnnlab.sweep.slots import Slot, slots


class LocalLauncher:
    """Runs each job in a process of its own on this machine.

    `jobs` run at a time: auto takes as many as there are GPUs, each job seeing one of them (`jobs_per_gpu`
    share it), or as many as there are cores where there is none. Whatever ends a process (an exception,
    sys.exit, a signal, no memory) ends one job.
    """

    def __init__(self, *, jobs: int | Literal["auto"] = "auto", jobs_per_gpu: int = 1) -> None:
        if jobs != "auto" and (not isinstance(jobs, int) or isinstance(jobs, bool) or jobs < 1):
            raise ValueError(f"jobs must be auto or a whole number >= 1, got {jobs!r}")
        self.jobs = None if jobs == "auto" else jobs
        self.jobs_per_gpu = whole("jobs_per_gpu", jobs_per_gpu, at_least=1)
        self.gpus: list[str] | None = None

    def threads(self, configs: Sequence[Config]) -> int:
        return self.slots(configs)[0].threads

    def slots(self, configs: Sequence[Config]) -> list[Slot]:
        """Places for jobs of these configurations."""
        on_cpu = all(config.tree["trainer"]["accelerator"] == "cpu" for config in configs)
        if self.gpus is None and not on_cpu:
            asked = Process(gpus)
            while not asked.ended():
                wait(asked.sources)
            self.gpus = asked.answer or []
        seen = [] if on_cpu else self.gpus or []
        return slots(len(configs), jobs=self.jobs, gpus=seen, jobs_per_gpu=self.jobs_per_gpu)

    def at_a_time(self, config: Config) -> int:
        """As many for every batch: the threads of a job, and so its bits, would else depend on the batch."""
        self.jobs = self.jobs or len(self.slots([config] * 1024))
        return self.jobs

    def __call__(
        self,
        jobs: Sequence[Job],
        changed: Callable[[], None] = lambda: None,
        task: Callable[[Config], Result] | None = None,
    ) -> None:
        free = self.slots([job.config for job in jobs])
        task = task or (worker.train_beside_others if len(free) > 1 else worker.train)
        see_through(jobs, Machine(free, task), changed)


class Machine:
    """Processes in the places of a machine."""

    def __init__(self, free: list[Slot], task: Callable[[Config], Result]) -> None:
        self.free, self.task = free, task

    def start(self, waiting: deque[Job]) -> Iterator["JobProcess"]:
        while waiting and self.free:
            yield JobProcess(waiting.popleft(), self.task, self.free)

    def wait(self, running: Sequence["JobProcess"]) -> None:
        wait([source for process in running for source in process.sources], TICK_S)


class JobProcess(Process):
    """A job's process; it takes the first of the free places, and gives it back when it has ended."""

    def __init__(self, job: Job, task: Callable[[Config], Result], free: list[Slot]) -> None:
        self.job, self.free, self.slot = job, free, free.pop(0)
        job.begin()
        sees = {} if self.slot.gpu is None else {"CUDA_VISIBLE_DEVICES": self.slot.gpu}
        super().__init__(worker.attempt, job.config, task, **sees)

    def ended(self) -> bool:
        if ended := super().ended():
            self.free.append(self.slot)
        return ended
