"""A sweep's report: the page beside its runs, and on W&B a run of its own that shows it."""

import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from cnnlab.allowed import RequestError
from cnnlab.config import Config
from cnnlab.mirror import Mirror
from cnnlab.parallel.process import Process
from cnnlab.report.find import Found, runs_below
from cnnlab.report.table import console

MIRRORED = "cnnlab.logger.WandbLogger"
PAGE, RECORD = "report.html", "report"  # in a sweep's folder; to W&B the record is a run's folder
START_S = 10.0  # for a process to start and to say what it has to


def publish(configs: Sequence[Config]) -> None:
    """Report the folders of a sweep whose runs are logged to W&B: as a page there, and on W&B.

    All runs in a folder are reported, as `cnnlab report` does; what was published since the last of them
    ended is left as it is. What goes wrong is told in one line.
    """
    loggers = {(c.tree["output_dir"], c.tree["name"]): c.tree["logger"] for c in reversed(configs)}
    for (output_dir, name), logger in loggers.items():
        folder = Path(output_dir, name)
        if logger["_target_"] != MIRRORED or _is_published(folder, found := runs_below([folder])):
            continue
        try:
            summary = _write(folder / PAGE, found)
        except (RequestError, OSError) as error:
            _warn(f"{folder / PAGE} was not written ({error})")
            continue
        console.print(f"{folder / PAGE}", soft_wrap=True, markup=False)
        knobs = {knob: value for knob, value in logger.items() if knob != "_target_"}
        patience_s = 2 * knobs["init_timeout"] + knobs["finish_timeout"] + START_S
        trouble = _within(patience_s, Process(_send, folder / PAGE, name, knobs, summary))
        if trouble:
            _warn(trouble)


def _is_published(folder: Path, found: Found) -> bool:
    """Whether there is nothing to say, or nothing new."""
    record = folder / RECORD / "wandb"
    ended = [(run.folder / "result.json").stat().st_mtime for run in found.runs]
    return not ended or (record.exists() and record.stat().st_mtime > max(ended))


def _write(path: Path, found: Found) -> dict[str, Any]:
    """Write the page; what a line about it tells."""
    from cnnlab.report.findings import metric_of, report
    from cnnlab.report.page import page

    metric = metric_of(found)
    made = report(found, metric, {}, f"cnnlab report {path.parent}")
    path.write_text(page(made), encoding="utf-8")
    best = [findings.ranked[0].label for findings in made.findings if findings.ranked]
    return {
        "report/runs": len(found.runs),
        "report/done": sum(run.result.status == "done" for run in found.runs),
        "report/metric": metric,
        "report/best": "; ".join(", ".join(label) for label in best),
    }


def _send(page: Path, name: str, knobs: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    """Show the page on W&B, and keep it as an artifact; what went wrong, if anything did."""
    label = identity(name)
    mirror = Mirror(
        page.parent / RECORD,
        id=label,
        group=name,
        name=f"report of {name}",
        job_type="report",
        tags=["report"],
        **knobs,
    )
    if mirror.run is not None:
        import wandb

        with mirror.shielded():
            mirror.run.log({"report/page": wandb.Html(page, inject=False)})
            artifact = wandb.Artifact(label, type="report")
            artifact.add_file(str(page))
            mirror.run.log_artifact(artifact)
    mirror.finish(summary, exit_code=0)
    return mirror.trouble


def identity(name: str) -> str:
    """A report's run and artifact on W&B: a sweep asked for again updates them.

    >>> identity("lr + width")
    'report-lr-width-cc49d671'
    """
    readable = re.sub(r"[^a-zA-Z0-9_.]+", "-", name)[:40]
    return f"report-{readable}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _within(patience_s: float, process: Process) -> str:
    """What a process answers; it is not waited for longer than that."""
    deadline = time.monotonic() + patience_s
    while not process.ended():
        try:
            news = wait(process.sources, max(0.0, deadline - time.monotonic()))
        except BaseException:
            process.kill()
            raise
        if not news:
            process.kill()
            return f"W&B did not take the report within {patience_s:g} s"
    return "W&B did not take the report" if process.answer is None else process.answer


def _warn(line: str) -> None:
    console.print(line, style="yellow", soft_wrap=True, markup=False)
