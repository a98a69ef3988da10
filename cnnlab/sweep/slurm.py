"""`hydra/launcher=submitit_slurm`: the arrays of a Slurm cluster, by way of submitit."""

import contextlib
import faulthandler
import io
import logging
import os
import shutil
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from types import FrameType
from typing import Any

from cnnlab.allowed import RequestError, number, one_of, whole
from cnnlab.config import Config
from cnnlab.folder import is_taken
from cnnlab.result import Result
from cnnlab.signals import Interrupted
from cnnlab.sweep import worker
from cnnlab.sweep.job import Job
from cnnlab.sweep.loop import TICK_S, see_through

ASK_S = 30.0  # between two questions to Slurm's accounting, which alone knows of a job that was killed
ASK_STOPPED_S = 2.0  # the same once jobs are told to stop
ARRAY = 1000  # jobs, of which Slurm takes one more by default


class SlurmLauncher:
    """Runs each job as a task of a Slurm array, under the limits that sbatch's options of these names set.

    A job that Slurm preempts, or whose `timeout_min` is nearly over, is checkpointed and queued again, after
    timeouts `max_num_timeout` times. `cluster`: local runs all jobs at once on this machine, to try things.
    The nodes must have this machine's folders under the same paths, with file locks that all of them see.
    """

    def __init__(
        self,
        *,
        cluster: str = "slurm",
        partition: str | None = None,
        timeout_min: int = 240,
        max_num_timeout: int = 10,
        cpus_per_task: int = 1,
        gpus_per_node: int = 0,
        gres: str | None = None,
        mem_gb: float | None = None,
        array_parallelism: int = 256,
        setup: Sequence[str] = (),
        additional_parameters: Mapping[str, Any] | None = None,
    ) -> None:
        if find_spec("submitit") is None:
            raise RequestError(
                "hydra/launcher=submitit_slurm: needs submitit, which pip install 'cnnlab[slurm]' brings"
            )
        self.cluster = one_of("cluster", cluster, ["slurm", "local"])
        if cluster == "slurm" and not (shutil.which("sbatch") and shutil.which("srun")):
            raise ValueError("cluster must be local where there are no sbatch and srun, got 'slurm'")
        self.max_num_timeout = whole("max_num_timeout", max_num_timeout, at_least=0)
        self.cpus_per_task = whole("cpus_per_task", cpus_per_task, at_least=1)
        self.array_parallelism = whole("array_parallelism", array_parallelism, at_least=1)
        if isinstance(setup, str):
            raise ValueError(f"setup must be a list of shell commands, got {setup!r}")
        self.options = {
            "timeout_min": whole("timeout_min", timeout_min, at_least=1),
            "gpus_per_node": whole("gpus_per_node", gpus_per_node, at_least=0) or None,
            "mem_gb": None if mem_gb is None else number("mem_gb", mem_gb, above=0),
            "slurm_partition": partition,
            "slurm_gres": gres,
            "slurm_array_parallelism": array_parallelism,
            "slurm_setup": [*setup] or None,
            "slurm_additional_parameters": additional_parameters,
        }

    def threads(self, configs: Sequence[Config]) -> int:
        return self.cpus_per_task

    def at_a_time(self, config: Config) -> int:
        return self.array_parallelism

    def __call__(self, jobs: Sequence[Job], changed: Callable[[], None] = lambda: None) -> None:
        import submitit

        logging.getLogger("submitit").setLevel(logging.CRITICAL)
        executor = submitit.AutoExecutor(
            jobs[0].folder.parent / ".submitit",
            cluster=self.cluster,
            **{f"{self.cluster}_max_num_timeout": self.max_num_timeout},
        )
        threads = max(job.config.tree["threads"] or 1 for job in jobs)
        name = f"cnnlab-{jobs[0].config.tree['name']}"
        executor.update_parameters(name=name, cpus_per_task=threads, **self.options)
        see_through(jobs, Queue(executor), changed)


class Queue:
    """Jobs that Slurm has queued or runs."""

    def __init__(self, executor: Any) -> None:
        self.executor = executor
        self.asked_at = time.monotonic()

    def start(self, waiting: deque[Job]) -> Iterator["Submitted"]:
        while waiting:
            jobs = [waiting.popleft() for _ in range(min(ARRAY, len(waiting)))]
            try:
                with contextlib.redirect_stderr(io.StringIO()):  # submitit prints what it raises
                    handles = self.executor.submit_array([Task(job.config) for job in jobs])
            except RuntimeError as error:
                said = " ".join(str(error).split())
                raise RequestError(f"hydra/launcher=submitit_slurm: {said}") from error
            yield from map(Submitted, jobs, handles)

    def wait(self, running: Sequence["Submitted"]) -> None:
        time.sleep(TICK_S)
        every_s = ASK_STOPPED_S if any(entry.stopped for entry in running) else ASK_S
        if running and time.monotonic() - self.asked_at > every_s:
            running[0].handle.get_info(mode="force")  # about all of them
            self.asked_at = time.monotonic()


class Submitted:
    """A job that Slurm was handed."""

    def __init__(self, job: Job, handle: Any) -> None:
        self.job, self.handle = job, handle
        self.answer: Result | None = None
        self.said = self.end = ""
        self.stopped = False

    def ended(self) -> bool:
        # What Slurm calls cancelled may still be about to write its checkpoint.
        if not self.handle.done() or (self.stopped and is_taken(self.job.folder)):
            return False
        if self.handle.paths.result_pickle.exists() and self.handle.exception() is None:
            self.answer = self.handle.result()
        elif (left := self.left()) is not None and left.status != "running":
            self.answer = left
        else:
            self.said = self.handle.stderr() or ""
            self.end = f"the job ended ({self.handle.state}) and left no result"
        return True

    def left(self) -> Result | None:
        """The record in the run's folder, if it is of this attempt."""
        return None if self.job.state == "pending" else Result.read(self.job.folder)

    def send(self, signum: int) -> None:
        self.stopped = True
        if type(self.handle).__name__ == "LocalJob":  # its cancel() leaves a job no time for a checkpoint
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(self.handle.job_id), signal.SIGTERM)
        else:
            self.handle.cancel(check=False)  # to a job that runs it is a SIGTERM

    def kill(self) -> None:
        self.handle.cancel(check=False)


class Task:
    """What a process of Slurm's does: one run, which a notice of Slurm's ends so that it can go on later."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.noticed = False

    def __call__(self) -> Result:
        from submitit import JobEnvironment

        faulthandler.enable()
        notice = getattr(signal, f"SIG{JobEnvironment.USR_SIG}")
        queue_again = signal.signal(notice, self.notice)
        signal.signal(signal.SIGTERM, stop)  # as long as no training has a better idea
        result = worker.attempt(self.config, worker.train_beside_others)
        if result.status == "interrupted":
            if self.noticed and callable(queue_again):
                queue_again(notice, None)
            raise SystemExit(result.error)  # without an answer: Slurm itself may have queued it again
        return result

    def checkpoint(self) -> Any:
        """Asked by submitit when it queues the job again: what is to run then."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(Task(replace(self.config, tree=self.config.tree | {"resume": True})))

    def notice(self, signum: int, frame: FrameType | None) -> None:
        self.noticed = True
        signal.raise_signal(signal.SIGTERM)


def stop(signum: int, frame: FrameType | None) -> None:
    raise Interrupted(signum)
