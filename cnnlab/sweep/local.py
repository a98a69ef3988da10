"""The launcher of this machine: as many processes at a time as there are GPUs or cores."""

from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from typing import Literal, NamedTuple

from cnnlab.allowed import whole
from cnnlab.config import Config
from cnnlab.folder import is_taken
from cnnlab.result import Result
from cnnlab.signals import Signals
from cnnlab.sweep import worker
from cnnlab.sweep.job import Job
from cnnlab.sweep.machine import Slot, slots
from cnnlab.sweep.process import Process

TICK_S = 0.5  # between two looks at signals, at other launchers' runs and at the progress of the jobs
TAIL = 10_000  # characters of what a process said before it died, kept in its result


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
            asked = Process(worker.gpus)
            while not asked.ended():
                wait(asked.sources)
            self.gpus = asked.answer or []
        gpus = [] if on_cpu else self.gpus or []
        return slots(len(configs), jobs=self.jobs, gpus=gpus, jobs_per_gpu=self.jobs_per_gpu)

    def __call__(
        self,
        jobs: Sequence[Job],
        changed: Callable[[], None] = lambda: None,
        task: Callable[[Config], Result] | None = None,
    ) -> None:
        free = self.slots([job.config for job in jobs])
        task = task or (worker.train_beside_others if len(free) > 1 else worker.train)
        waiting, elsewhere, running = deque(jobs), list[Job](), list[Running]()
        told_to_stop = False
        with Signals() as signals:
            try:
                while waiting or running or elsewhere:
                    if signals.received is not None and not told_to_stop:
                        waiting.clear()
                        elsewhere.clear()
                        for entry in running:
                            entry.process.send(signals.received)
                        told_to_stop = True
                    while waiting and free:
                        running.append(Running.start(waiting.popleft(), free.pop(0), task))
                    changed()
                    wait([source for entry in running for source in entry.process.sources], TICK_S)
                    for entry in [entry for entry in running if entry.process.ended()]:
                        running.remove(entry)
                        free.append(entry.slot)
                        entry.conclude(stopped=told_to_stop)
                        if entry.job.state == "elsewhere" and not told_to_stop:
                            elsewhere.append(entry.job)
                    for job in [job for job in elsewhere if not is_taken(job.folder)]:
                        elsewhere.remove(job)
                        result = Result.read(job.folder)
                        if result is not None and result.status == "done":
                            job.end(result)
                        else:  # whoever trained it was stopped
                            waiting.append(job)
            finally:
                for entry in running:
                    entry.process.kill()
                changed()
        signals.check()


class Running(NamedTuple):
    """A job, its place on the machine, and its process."""

    job: Job
    slot: Slot
    process: Process

    @classmethod
    def start(cls, job: Job, slot: Slot, task: Callable[[Config], Result]) -> "Running":
        sees = {} if slot.gpu is None else {"CUDA_VISIBLE_DEVICES": slot.gpu}
        job.begin()
        return cls(job, slot, Process(worker.attempt, job.config, task, **sees))

    def conclude(self, *, stopped: bool) -> None:
        """The process has ended: its output goes to the run's log, its answer is the job's result."""
        said, result = self.process.said, self.process.answer
        if said and self.job.folder.is_dir():
            with (self.job.folder / "log.txt").open("a") as log:
                log.write(said)
        if result is None and stopped:  # too early to have left anything
            self.job.state = "pending"
        elif result is None:
            self.job.end(worker.failed(self.job.config, self.process.end, said[-TAIL:] or None))
        else:
            self.job.end(result)
        if self.job.state == "elsewhere":
            self.job.result = None
