"""What a sweep would do: the state of each run, and what the missing ones would take."""

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from rich.table import Table
from rich.text import Text

from cnnlab.config import Config
from cnnlab.folder import is_taken
from cnnlab.registry import node
from cnnlab.report.table import apart, console, say
from cnnlab.result import Result
from cnnlab.sweep import worker
from cnnlab.sweep.board import clock
from cnnlab.sweep.job import Job, Launcher
from cnnlab.sweep.local import LocalLauncher


def show(configs: Sequence[Config], launcher: Launcher) -> int:
    """Print the runs with state and cost; the exit code is 0, or that of the worst that would be refused.

    A missing run takes what the same variant took with another seed; where none of these is done, the first
    steps of each variant are made and thrown away.
    """
    local = launcher if isinstance(launcher, LocalLauncher) else LocalLauncher()
    before = [Result.read(config.folder) if config.tree["resume"] else None for config in configs]
    variants = [Result.of(config).variant for config in configs]
    costs = {result.variant: result for result in before if result is not None and result.status == "done"}
    costs |= measured({v: c for v, c in zip(variants, configs, strict=True) if v not in costs}, local)

    table = Table(box=None)
    table.add_column(f"{len(configs)} run{'s' * (len(configs) != 1)}", overflow="fold")
    for name in ("state", "parameters", "memory", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    states = [state(config, result) for config, result in zip(configs, before, strict=True)]
    left_s = 0.0
    for config, result, now, variant, label in zip(
        configs, before, states, variants, apart(configs), strict=True
    ):
        cost = costs[variant]
        if cost.status != "done":
            table.add_row(Text(label), cost.status, style="red")
            continue
        if now != "done":
            left_s += cost.wall_s * (1 - (result.epochs_done if result else 0) / config.tree["epochs"])
        memory = "" if cost.peak_memory_mb is None else f"{cost.peak_memory_mb:,.0f} MB"
        table.add_row(Text(label), now, f"{cost.params:,}", memory, clock(cost.wall_s))
    console.print(table)
    ours, at_a_time = launcher.threads(configs), min(len(configs), launcher.at_a_time(configs[0]))
    threads = ",".join(map(str, sorted({config.tree["threads"] or ours for config in configs})))
    kinds = ", ".join(f"{count} {now}" for now, count in Counter(states).items())
    say(f"{kinds}; {at_a_time} at a time, threads={threads}: about {clock(left_s / at_a_time)}")
    console.print(f"estimated from done runs, else from the first {worker.STEPS} steps of each variant")
    return told(costs)


def told(costs: Mapping[str, Result]) -> int:
    """Print why variants cannot run; the exit code."""
    wrong = [result for result in costs.values() if result.status != "done"]
    for result in wrong:
        error = result.error if result.status == "refused" else f"{result.status}: {result.error}"
        console.print(str(error), style="red", markup=False, soft_wrap=True)
    return max((2 if result.status == "refused" else 1 for result in wrong), default=0)


def state(config: Config, before: Result | None) -> str:
    """Whether a run is done, or what becomes of it."""
    if is_taken(config.folder):
        return "running"
    if before is None:
        return "new"
    return {"running": "killed"}.get(before.status, before.status)


def measured(variants: Mapping[str, Config], launcher: LocalLauncher) -> dict[str, Result]:
    """The first steps of each variant, made beside each other as the sweep would."""
    if not variants:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        elsewhere = {"output_dir": folder, "logger": node("logger", "none")}
        jobs = {v: Job(replace(c, tree=c.tree | elsewhere)) for v, c in variants.items()}
        launcher([*jobs.values()], task=worker.measure)
    return {v: job.result for v, job in jobs.items() if job.result is not None}
