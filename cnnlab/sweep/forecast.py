"""When a sweep will be done, by the pace of its jobs so far and how many of them run at a time."""

import heapq
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean, median

from cnnlab.history import History, Row
from cnnlab.result import Result
from cnnlab.sweep.job import Job


def epochs(job: Job) -> list[Row]:
    """A row for each epoch that a job has trained, in this attempt or before."""
    return [row for row in History(job.folder / "history.csv").rows() if "train/loss" in row]


def count(rows: Sequence[Row]) -> int:
    return int(rows[-1]["epoch"]) if rows else 0


class Forecast:
    """Watches jobs, and tells how long they will take.

    An epoch of a job takes what it took so far; else what it took the same variant with other seeds (the
    median, for the first jobs of a sweep start slowly); else what it takes the other variants.
    """

    def __init__(self) -> None:
        self.before: dict[int, int] = {}  # job -> epochs from earlier attempts
        self.took_s: dict[int, float] = {}  # jobs that ended in this sweep
        self.variants: list[str] = []
        self.at_a_time = 1

    def watch(self, jobs: Sequence[Job]) -> None:
        """Take note of what has begun and what has ended; to be called as soon as it has."""
        self.variants = self.variants or [Result.of(job.config).variant for job in jobs]
        self.at_a_time = max(self.at_a_time, sum(job.state == "running" for job in jobs))
        for i, job in enumerate(jobs):
            if i not in self.before:
                fresh = job.result is not None or not job.config.tree["resume"]
                self.before[i] = 0 if fresh else count(epochs(job))
            if job.result is not None and job.began and i not in self.took_s:
                self.took_s[i] = time.monotonic() - job.began

    def epoch_s(self, i: int, job: Job, done: int) -> float | None:
        """Seconds an epoch, of a job that has trained so many; None while nothing tells."""
        if job.state == "done":
            done = job.config.tree["epochs"]  # or less, where max_steps says so
        elif job.config.tree["trainer"].get("max_steps", -1) != -1:  # how many epochs that is, who knows
            return None
        if not job.began or done <= self.before[i]:
            return None
        return self.took_s.get(i, time.monotonic() - job.began) / (done - self.before[i])

    def left_s(self, jobs: Sequence[Job], trained: Mapping[int, int]) -> float | None:
        """Seconds until all are done, given the epochs of the running ones; None while nothing tells."""
        own: dict[int, float] = {}
        ended, running = (defaultdict[str, list[float]](list) for _ in range(2))
        for i, job in enumerate(jobs):
            done = trained.get(i, 0) if job.result is None else job.result.epochs_done
            if (pace := self.epoch_s(i, job, done)) is not None:
                own[i] = pace
                (running if job.result is None else ended)[self.variants[i]].append(pace)
        if not own:
            return None
        usual = {variant: median(paces) for variant, paces in (running | ended).items()}
        of_others = fmean(usual.values())
        places, waiting = [], []  # seconds until a place is free, seconds that a job needs
        for i, job in enumerate(jobs):
            if job.result is None:
                pace = own.get(i) or usual.get(self.variants[i], of_others)
                needs_s = pace * (job.config.tree["epochs"] - self.before[i])
                if job.state == "running":
                    places.append(max(0.0, needs_s - (time.monotonic() - job.began)))
                else:
                    waiting.append(needs_s)
        places += [0.0] * (self.at_a_time - len(places))
        heapq.heapify(places)
        for needs_s in waiting:  # each begins where a place is free first
            heapq.heapreplace(places, places[0] + needs_s)
        return max(places)
