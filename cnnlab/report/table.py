"""Tables in the terminal: one run, or a sweep's variants with mean and standard deviation over seeds."""

import statistics
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cnnlab.config import Config, default_words, is_essential, shown
from cnnlab.result import Result

console = Console(highlight=False)


def say(line: str) -> None:
    console.print(Text(line, style="bold"))


def say_done(result: Result, config: Config) -> None:
    """That a run is not run again, and what may speak against that."""
    from cnnlab.provenance import sources

    commit = f" at commit {result.git}" if result.git else ""
    when = str(result.finished)[:16].replace("T", " ")
    say(f"Done already, {when} UTC{commit}; resume=false runs it afresh")
    changed = [name for name, digest in sources(config).items() if result.sources.get(name, digest) != digest]
    if changed:
        console.print(
            f"The source of {', '.join(changed)} has changed since.", style="yellow", soft_wrap=True
        )


def show(result: Result, folder: Path) -> None:
    """One run: its metrics, its cost, and where it lies."""
    table = Table(
        title=describe(result), title_justify="left", title_style="bold", box=None, show_header=False
    )
    table.add_column(style="cyan")
    table.add_column(justify="right")
    for name, value in rows(result):
        table.add_row(name, value)
    if result.status == "done":
        console.print(table)
    else:
        console.print(f"{result.status}: {result.error}", style="red", soft_wrap=True, markup=False)
    console.print(f"{folder}", soft_wrap=True, markup=False)


def describe(result: Result) -> str:
    """The choices and values that are not the defaults."""
    defaults = default_words()
    changed = {g: w for g, w in result.choices.items() if w != defaults.get(g)} | result.values
    named = {key: value for key, value in changed.items() if is_essential(key)}
    return ", ".join(f"{key}={shown(value)}" for key, value in named.items()) or "defaults"


def rows(result: Result) -> list[tuple[str, str]]:
    """What is worth reading first, then all other metrics, then the cost."""
    first = ("test/accuracy", "val/accuracy", "train/accuracy", "ortho/loss", "conv/violation")
    names = [name for name in first if name in result.metrics]
    names += sorted(name for name in result.metrics.keys() - {*first} if not name.startswith("time/"))
    lines = [(name, number(result.metrics[name])) for name in names]
    lines += [("best epoch", f"{result.best_epoch} of {result.epochs_done}")]
    lines += [("parameters", f"{result.params:,}"), ("MACs per image", f"{result.macs:,}")]
    if result.images_per_s is not None:
        lines += [("images/s", f"{result.images_per_s:,.0f}")]
    return [*lines, ("wall time", f"{result.wall_s:.1f} s on {result.device}")]


def compare(results: list[Result]) -> None:
    """A sweep: a row per variant, mean ± standard deviation (n - 1) over its seeds."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        if result.status == "done":
            groups.setdefault(result.variant, []).append(result)
    if not groups:
        return
    names = [
        name
        for name in ("val/accuracy", "test/accuracy", "ortho/loss")
        if any(name in result.metrics for result in results)
    ]
    table = Table(box=None, title="mean ± standard deviation over seeds", title_justify="left")
    table.add_column("", overflow="fold")
    for name in ("n", *names, "images/s"):
        table.add_column(name, justify="right", no_wrap=True)
    for members in groups.values():
        table.add_row(
            variant_name(members[0]),
            str(len(members)),
            *(spread([m.metrics[name] for m in members if name in m.metrics]) for name in names),
            f"{statistics.mean(m.images_per_s or 0 for m in members):,.0f}",
        )
    console.print(table)
    failed = sum(result.status != "done" for result in results)
    if failed:
        console.print(f"{failed} of {len(results)} runs failed", style="red")


def variant_name(result: Result) -> str:
    return (
        ", ".join(part for part in describe(result).split(", ") if not part.startswith("seed=")) or "defaults"
    )


def spread(values: list[float]) -> str:
    if not values:
        return "-"
    mean = number(statistics.mean(values))
    return f"{mean} ± {number(statistics.stdev(values))}" if len(values) > 1 else mean


def number(value: float) -> str:
    """Four significant digits, as few characters as that takes.

    >>> number(0.97222), number(37.4871), number(0.000012)
    ('0.9722', '37.49', '1.2e-05')
    """
    return f"{value:.4f}" if 0.1 <= abs(value) < 1 else f"{value:.4g}"
