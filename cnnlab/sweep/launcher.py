"""Frozen configurations in, results out: what is done is not done again, what is missing is."""

from collections.abc import Callable, Sequence
from typing import Any

from cnnlab.allowed import RequestError
from cnnlab.config import Config
from cnnlab.result import Result
from cnnlab.sweep import manifest
from cnnlab.sweep.job import Job, Launcher
from cnnlab.sweep.local import LocalLauncher


def check(configs: Sequence[Config]) -> None:
    """Refuse, by RequestError, runs that are to take several devices."""
    for config in configs:
        if config.is_distributed:
            raise RequestError(f"{config.says('trainer')}: trains on several devices, a sweep's job has one")


def run_jobs(
    configs: Sequence[Config],
    launcher: Launcher | None = None,
    *,
    retry_failed: bool = True,
    on_change: Callable[[Sequence[Job]], Any] = lambda jobs: None,
) -> list[Result]:
    """The results of the configurations, in their order; equal configurations are one run.

    What befalls a job is told by its result: `status` (done, failed, interrupted, or refused by a
    constructor) and `error`. Runs that are done are not run again, interrupted ones go on where they
    stopped, failed ones are tried again unless `retry_failed` is false.

    Raises:
        RequestError: a run is to take several devices; or the sweep's folder cannot be written.
        Interrupted: a signal came; the running jobs are checkpointed, the others left pending.
    """
    check(configs)
    jobs = {config.key: Job(config) for config in configs}
    kept = ("done",) if retry_failed else ("done", "failed")
    for job in jobs.values():
        before = Result.read(job.folder) if job.config.tree["resume"] else None
        if before is not None and before.status in kept:
            job.end(before)
    missing = [job for job in jobs.values() if job.result is None]
    on_change([*jobs.values()])
    if missing:
        manifest.folders(missing)  # refused at once, not after the seconds that a launcher may take to start
        launcher = launcher or LocalLauncher()
        manifest.fix(missing, launcher.threads([job.config for job in jobs.values()]))
        launcher(missing, lambda: on_change([*jobs.values()]))
    return [result for config in configs if (result := jobs[config.key].result) is not None]
