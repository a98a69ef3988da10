"""What one sees of a sweep while it runs: a live table on a terminal, elsewhere a line per finished job."""

import time
from collections import Counter
from collections.abc import Sequence

from rich.live import Live
from rich.table import Table
from rich.text import Text

from cnnlab.history import History
from cnnlab.report.table import apart, console, number, say
from cnnlab.sweep.job import Job

REFRESH_S = 0.5
STYLES = {"running": "bold", "failed": "red", "refused": "red", "interrupted": "yellow"}
FIRST = ("running", "failed", "refused", "interrupted", "elsewhere", "done", "pending")  # where not all fit


class Board:
    """Context that shows jobs; it is called with all of them whenever they may have changed."""

    def __init__(self) -> None:
        self.live: Live | None = None
        self.labels: list[str] = []
        self.shown_at = 0.0
        self.before: dict[int, int] = {}  # epochs that a running job had from earlier attempts
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
        if self.live is None:
            self.tell(jobs)
        elif time.monotonic() - self.shown_at > REFRESH_S:
            self.live.update(self.table(jobs), refresh=True)
            self.shown_at = time.monotonic()

    def tell(self, jobs: Sequence[Job]) -> None:
        """A line for each job that has ended since the last."""
        for index, (job, label) in enumerate(zip(jobs, self.labels, strict=True)):
            if job.result is not None and index not in self.told:
                self.told.add(index)
                metric = job.result.metrics.get("val/accuracy")
                said = f"val/accuracy {number(metric)}" if metric is not None else ""
                if job.state != "done":
                    said = str(job.result.error).partition("\n")[0]
                say(f"[{len(self.told)}/{len(jobs)}] {label}: {job.state} {said}".rstrip())

    def table(self, jobs: Sequence[Job]) -> Table:
        """As many jobs as fit the screen, those that matter now first, and how many of each kind."""
        counts = Counter(job.state for job in jobs)
        room = max(1, console.height - 4)
        rows = sorted(range(len(jobs)), key=lambda i: FIRST.index(jobs[i].state))[:room]
        table = Table(box=None, expand=True, caption_justify="left", padding=(0, 1, 0, 0))
        table.caption = ", ".join(f"{counts[state]} {state}" for state in FIRST if counts[state])
        table.add_column(f"{len(jobs)} jobs", no_wrap=True, overflow="ellipsis", ratio=1)
        for name in ("state", "epoch", "val/accuracy", "left"):
            table.add_column(name, justify="right", no_wrap=True)
        for i in sorted(rows):
            job = jobs[i]
            cells = self.running(i, job) if job.state == "running" else ended(job)
            table.add_row(Text(self.labels[i]), job.state, *cells, style=STYLES.get(job.state, "dim"))
        return table

    def running(self, index: int, job: Job) -> tuple[str, str, str]:
        """Epochs done, best accuracy, time left at the pace of this attempt: as the history tells."""
        epochs = History(job.folder / "history.csv").rows()
        epochs = [row for row in epochs if "train/loss" in row]
        done = int(epochs[-1]["epoch"]) if epochs else 0
        before = self.before.setdefault(index, done)  # this attempt
        best = max((row["val/accuracy"] for row in epochs if "val/accuracy" in row), default=None)
        left = ""
        if done > before:
            pace_s = (time.monotonic() - job.began) / (done - before)
            left = clock(pace_s * (job.config.tree["epochs"] - done))
        return f"{done}/{job.config.tree['epochs']}", "" if best is None else number(best), left


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
