"""`cnnlab -m ...`: the runs of a sweep or a search, trained under a live table and compared; or listed."""

import sys
from typing import Any

from cnnlab.allowed import RequestError
from cnnlab.compose import Composer
from cnnlab.config import Config
from cnnlab.report import table
from cnnlab.result import Result
from cnnlab.signals import Interrupted
from cnnlab.sweep.board import Board
from cnnlab.sweep.job import Launcher
from cnnlab.sweep.launcher import check, run_jobs
from cnnlab.sweep.local import LocalLauncher
from cnnlab.sweep.plan import show
from cnnlab.sweep.publish import publish
from cnnlab.sweep.settings import settings


def sweep(composer: Composer, lines: list[str]) -> int:
    """Run every combination of a sweep's values, each in its own process; the worst of the exit codes."""
    launcher, sweeper = settings(composer, lines)
    if is_search(sweeper):
        return search(composer, lines, launcher, sweeper)
    configs = combinations(composer, lines, sweeper)
    try:
        results = trained(configs, launcher)
    except Interrupted:
        found = [Result.read(config.folder) for config in configs]
        table.compare([result for result in found if result is not None], len(configs))
        raise
    for result in results:
        if result.status == "refused":
            print(result.error, file=sys.stderr)
    table.compare(results, len(configs))
    publish([config for config, result in zip(configs, results, strict=True) if result.status != "refused"])
    codes = {"done": 0, "refused": 2}
    return max(codes.get(result.status, 1) for result in results)


def is_search(sweeper: dict[str, Any]) -> bool:
    return sweeper["_target_"].startswith("cnnlab.search.")


def search(composer: Composer, lines: list[str], launcher: Launcher, sweeper: dict[str, Any]) -> int:
    """Search what the lines leave open; the exit code."""
    from cnnlab.search.command import search

    asked: list[Config] = []

    def tried(configs: list[Config]) -> list[Result]:
        asked.extend(configs)
        return trained(configs, launcher)

    code = search(composer, lines, sweeper, tried, launcher.at_a_time)
    publish(asked)
    return code


def trained(configs: list[Config], launcher: Launcher) -> list[Result]:
    """The results of configurations, each trained where the launcher has room, under a live table."""
    with Board() as board:
        retry = configs[0].tree["sweep"]["retry_failed"]
        return run_jobs(configs, launcher, retry_failed=retry, on_change=board)


def combinations(composer: Composer, lines: list[str], sweeper: dict[str, Any]) -> list[Config]:
    """The configurations that the lines of a sweep ask for."""
    params = sweeper["params"] or {}  # what an experiment sweeps by itself
    configs = composer.sweep([*(f"{key}={value}" for key, value in params.items()), *lines])
    for key, choices in composer.left_out.items():
        table.say(f"{key} is left out for {', '.join(choices)}, which has none")
    return configs


def dry_run(composer: Composer, lines: list[str], multirun: bool) -> int:
    """List what would run, and what it would take; nothing is trained to the end and nothing written."""
    if not multirun:
        return show([composer.one(lines)], LocalLauncher())
    launcher, sweeper = settings(composer, lines)
    if is_search(sweeper):
        raise RequestError("--dry-run: a search draws its runs as it goes")
    check(configs := combinations(composer, lines, sweeper))
    return show(configs, launcher)
