"""The course of a sweep's jobs, wherever they run: started, waited for, stopped by a signal, concluded."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from cnnlab.folder import failed, is_taken
from cnnlab.result import Result
from cnnlab.signals import Signals
from cnnlab.sweep.job import Job

TICK_S = 0.5  # between two looks at signals, at other launchers' runs and at the progress of the jobs
TAIL = 10_000  # characters of what a job said before it died, kept in its result


class Running(Protocol):
    """A job under way. Once it has ended, `answer` is its result; None: `end` and `said` tell why."""

    job: Job
    answer: Result | None
    said: str

    @property
    def end(self) -> str: ...

    def ended(self) -> bool: ...

    def send(self, signum: int) -> None: ...

    def kill(self) -> None: ...


Handle = TypeVar("Handle", bound=Running)


class Place(Protocol[Handle]):
    """Where jobs run: `start` takes from the left of the queue what there is room for, `wait` is for news."""

    def start(self, waiting: deque[Job]) -> Iterable[Handle]: ...

    def wait(self, running: Sequence[Handle]) -> None: ...


def see_through(jobs: Sequence[Job], place: Place[Handle], changed: Callable[[], None]) -> None:
    """End each job with a result; a run that another process trains is waited for.

    Raises:
        Interrupted: a signal came; the running jobs are checkpointed, the others left pending.
    """
    waiting, elsewhere, running = deque(jobs), list[Job](), list[Handle]()
    told_to_stop = False
    with Signals() as signals:
        try:
            while waiting or running or elsewhere:
                if signals.received is not None and not told_to_stop:
                    waiting.clear()
                    elsewhere.clear()
                    for entry in running:
                        entry.send(signals.received)
                    told_to_stop = True
                running += place.start(waiting)
                changed()
                place.wait(running)
                for entry in running:
                    entry.job.look()
                for entry in [entry for entry in running if entry.ended()]:
                    running.remove(entry)
                    conclude(entry, stopped=told_to_stop)
                    if entry.job.state == "elsewhere" and not told_to_stop:
                        elsewhere.append(entry.job)
                for job in [job for job in elsewhere if not is_taken(job.folder)]:
                    elsewhere.remove(job)
                    result = Result.read(job.folder)
                    if result is not None and result.status in ("done", "failed"):
                        job.end(result)
                    else:  # whoever trained it was stopped
                        waiting.append(job)
        finally:
            for entry in running:
                entry.kill()
            changed()
    signals.check()


def conclude(entry: Running, *, stopped: bool) -> None:
    """The job has ended: what it said goes to the run's log, its answer is its result."""
    job, said = entry.job, entry.said
    if said and job.folder.is_dir():
        with (job.folder / "log.txt").open("a") as log:
            log.write(said)
    if entry.answer is not None:
        job.end(entry.answer)
    elif stopped:  # too early to have left anything
        job.state = "pending"
    else:
        job.end(failed(job.config, entry.end, said[-TAIL:] or None))
    if job.state == "elsewhere":
        job.result = None
