"""What one sees of a sweep while it runs: a live table on a terminal, elsewhere a line per finished job."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence

from rich.live import Live
from rich.table import Table
from rich.text import Text

from cnnlab.history import Row
from cnnlab.report.table import apart, console, number, say
from cnnlab.sweep.forecast import Forecast, count, epochs
from cnnlab.sweep.job import Job

REFRESH_S = 0.5
STYLES = {"running": "bold", "failed": "red", "refused": "red", "interrupted": "yellow"}
# Of each state a job may have; the first are shown where not all fit.
FIRST = ("running", "failed", "refused", "interrupted", "elsewhere", "pruned", "done", "pending")


class Board:
    """Context that shows jobs; it is called with all of them whenever they may have changed."""

    def __init__(self) -> None:
        self.live: Live | None = None
        self.labels: list[str] = []
        self.shown_at = 0.0
        self.forecast = Forecast()
        self.told: set[int] = set()  # jobs that had their line

    def __enter__(self) -> "Board":
        if console.is_terminal:
            self.live = Live(console=console, auto_refresh=False, transient=True).__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        if self.live is not None:
            self.live.__exit__(None, None, None)

    def __call__(self, jobs: Sequence[Job]) -> None:
        self.labels = self.labels or apart([job.config for job in jobs])
        self.forecast.watch(jobs)
        if self.live is None:
            self.tell(jobs)
        elif time.monotonic() - self.shown_at > REFRESH_S:
            self.live.update(self.table(jobs), refresh=True)
            self.shown_at = time.monotonic()

    def tell(self, jobs: Sequence[Job]) -> None:
        """A line for each job that has ended since the last."""
        news = [(i, job.result) for i, job in enumerate(jobs) if job.result and i not in self.told]
        left = self.left(jobs, histories(jobs)) if news else ""
        for i, result in news:
            self.told.add(i)
            metric = result.metrics.get("val/accuracy")
            said = f"val/accuracy {number(metric)}" if metric is not None else ""
            if result.status != "done":
                said = str(result.error).partition("\n")[0]
            line = f"[{len(self.told)}/{len(jobs)}] {self.labels[i]}: {result.status} {said}".rstrip()
            say(f"{line}; {left}" if left else line)

    def left(self, jobs: Sequence[Job], running: Mapping[int, Sequence[Row]]) -> str:
        """The time left of the whole sweep, where something tells it."""
        left_s = self.forecast.left_s(jobs, {i: count(rows) for i, rows in running.items()})
        return f"about {clock(left_s)} left" if left_s else ""

    def table(self, jobs: Sequence[Job]) -> Table:
        """As many jobs as fit the screen, those that matter now first, and how many of each kind."""
        counts = Counter(job.state for job in jobs)
        room = max(1, console.height - 4)
        rows = sorted(range(len(jobs)), key=lambda i: FIRST.index(jobs[i].state))[:room]
        table = Table(box=None, expand=True, caption_justify="left", padding=(0, 1, 0, 0))
        running = histories(jobs)
        told = [f"{counts[state]} {state}" for state in FIRST if counts[state]]
        table.caption = ", ".join([*told, *filter(None, [self.left(jobs, running)])])
        table.add_column(f"{len(jobs)} jobs", no_wrap=True, overflow="ellipsis", ratio=1)
        for name in ("state", "epoch", "val/accuracy", "left"):
            table.add_column(name, justify="right", no_wrap=True)
        for i in sorted(rows):
            job = jobs[i]
            cells = self.running(i, job, running[i]) if i in running else ended(job)
            table.add_row(Text(self.labels[i]), job.state, *cells, style=STYLES.get(job.state, "dim"))
        return table

    def running(self, i: int, job: Job, rows: Sequence[Row]) -> tuple[str, str, str]:
        """Epochs done, best accuracy, time left at the pace of this attempt."""
        done, whole = count(rows), job.config.tree["epochs"]
        best = max((row["val/accuracy"] for row in rows if "val/accuracy" in row), default=None)
        epoch_s = self.forecast.epoch_s(i, job, done)
        left = "" if epoch_s is None else clock(epoch_s * (whole - done))
        return f"{done}/{whole}", "" if best is None else number(best), left


def histories(jobs: Sequence[Job]) -> dict[int, list[Row]]:
    """The epochs of the jobs that run."""
    return {i: epochs(job) for i, job in enumerate(jobs) if job.state == "running"}


def ended(job: Job) -> tuple[str, str, str]:
    """Epochs done and best accuracy of a job that does not run."""
    if job.result is None:
        return "", "", ""
    best = job.result.metrics.get("val/accuracy")
    return f"{job.result.epochs_done}/{job.config.tree['epochs']}", "" if best is None else number(best), ""


def clock(seconds: float) -> str:
    """
    >>> clock(59), clock(3725)
    ('0:59', '1:02:05')
    """
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"
