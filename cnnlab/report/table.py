"""Tables in the terminal: one run, or a sweep's variants with mean and standard deviation over replicates."""

import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cnnlab.config import Config, default_words, is_essential, shown
from cnnlab.result import REPLICATED, Result

COMPARED = ("val/accuracy", "test/accuracy", "val/rmse", "test/rmse", "ortho/loss")


class Terminal(Console):
    """A console whose reader may leave, as `head` does: it falls silent, and the jobs go on."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


console = Terminal(highlight=False)


def say(line: str) -> None:
    console.print(Text(line, style="bold"), soft_wrap=True)


def say_done(result: Result, config: Config) -> None:
    """That a run is not run again, and what may speak against that."""
    from cnnlab.provenance import sources

    commit = f" at commit {result.git}" if result.git else ""
    when = str(result.finished)[:16].replace("T", " ")
    say(f"Done on {when} UTC{commit}; resume=false runs it afresh")
    changed = [name for name, digest in sources(config).items() if result.sources.get(name, digest) != digest]
    if changed:
        console.print(
            f"The source of {', '.join(changed)} has changed since.", style="yellow", soft_wrap=True
        )


def show(result: Result, folder: Path) -> None:
    """One run: its metrics, its cost, and where it lies."""
    say(" ".join(differences(result)) or "defaults")
    table = Table(box=None, show_header=False)
    table.add_column(style="cyan")
    table.add_column(justify="right")
    for name, value in rows(result):
        table.add_row(name, value)
    if result.status == "done":
        console.print(table)
    else:
        console.print(f"{result.status}: {result.error}", style="red", soft_wrap=True, markup=False)
    console.print(f"{folder}", soft_wrap=True, markup=False)


def differences(result: Config | Result) -> list[str]:
    """The choices and values that are not the defaults."""
    defaults = default_words()
    changed = {g: w for g, w in result.choices.items() if w != defaults.get(g)} | result.values
    return [f"{key}={shown(value)}" for key, value in changed.items() if is_essential(key)]


def apart(runs: Sequence[Config | Result]) -> list[str]:
    """What sets each of some runs apart from the others, as one types it."""
    told = [differences(run) for run in runs]
    shared = set(told[0]).intersection(*told) if len(told) > 1 else set()
    return [" ".join(part for part in parts if part not in shared) or "defaults" for parts in told]


def rows(result: Result) -> list[tuple[str, str]]:
    """What is worth reading first, then all other metrics, then the cost."""
    scores = [f"{part}/{score}" for score in ("accuracy", "rmse") for part in ("test", "val", "train")]
    first = (*scores, "ortho/loss", "conv/violation")
    names = [name for name in first if name in result.metrics]
    names += sorted(name for name in result.metrics.keys() - {*first} if not name.startswith("time/"))
    lines = [(name, number(result.metrics[name])) for name in names]
    if result.best_epoch is not None:
        lines += [("best epoch", f"{result.best_epoch} of {result.epochs_done}")]
    if result.match is not None:
        width, cost, budget = (result.match[key] for key in ("width", "cost", "budget"))
        lines += [("matched width", f"{width:g}: {cost:,.0f} of {budget:,.0f}")]
    lines += [("parameters", f"{result.params:,}"), ("MACs per image", f"{result.macs:,}")]
    if result.images_per_s is not None:
        lines += [("images/s", f"{result.images_per_s:,.0f}")]
    return [*lines, ("wall time", f"{result.wall_s:.1f} s on {result.device}")]


def compare(results: list[Result], jobs: int) -> None:
    """A sweep: a row per variant, mean ± standard deviation (n - 1) of replicates; then what went wrong."""
    by_variant: dict[str, dict[tuple[int, int], Result]] = {}
    for result in results:
        if result.status == "done":
            by_variant.setdefault(result.variant, {})[result.replicate] = result  # the same run counts once
    variants = {variant: [*members.values()] for variant, members in by_variant.items()}
    names = [name for name in COMPARED if any(name in m[0].metrics for m in variants.values())]
    replicated = tuple(f"{key}=" for key in REPLICATED)
    told = [
        [part for part in differences(m[0]) if not part.startswith(replicated)] for m in variants.values()
    ]
    shared = [part for part in (told or [[]])[0] if all(part in parts for parts in told)]
    over = "seeds and folds" if any(result.replicate[1] for result in results) else "seeds"
    table = Table(box=None, title=f"mean ± standard deviation over {over}", title_justify="left")
    table.add_column("variant", overflow="fold", min_width=24)
    if any(result.shared for result in results):
        table.caption = "images/s of jobs that shared the machine: only `cnnlab bench` ranks time"
        table.caption_justify = "left"
    for name in ("n", *names, "images/s"):
        table.add_column(name, justify="right", no_wrap=True)
    for parts, members in zip(told, variants.values(), strict=True):
        table.add_row(
            ", ".join(part for part in parts if part not in shared) or "defaults",
            str(len(members)),
            *(spread([m.metrics[name] for m in members if name in m.metrics]) for name in names),
            speed(members),
        )
    if variants:
        if shared:
            console.print(", ".join(shared), soft_wrap=True, markup=False)
        console.print(table)
    missing = jobs - sum(result.status == "done" for result in results)
    if missing:
        console.print(f"{missing} of {jobs} runs are not done", style="red")
    for result, label in zip(results, apart(results), strict=True):
        if result.status != "done":
            error = str(result.error).partition("\n")[0]
            console.print(f"{label}: {result.status}, {error}", style="red", soft_wrap=True, markup=False)


def speed(members: Sequence[Result]) -> str:
    """Mean of those that took steps."""
    speeds = [member.images_per_s for member in members if member.images_per_s]
    return f"{statistics.mean(speeds):,.0f}" if speeds else "-"


def spread(values: list[float]) -> str:
    """Mean, and standard deviation to the same decimal.

    >>> spread([0.96, 0.98]), spread([37.4871])
    ('0.9700 ± 0.0141', '37.49')
    """
    if not values:
        return "-"
    mean = number(statistics.mean(values))
    decimals = len(mean.partition(".")[2]) if "e" not in mean else 0
    return f"{mean} ± {statistics.stdev(values):.{decimals}f}" if len(values) > 1 else mean


def number(value: float) -> str:
    """Four significant digits, as few characters as that takes.

    >>> number(0.97222), number(37.4871), number(0.000012)
    ('0.9722', '37.49', '1.2e-05')
    """
    return f"{value:.4f}" if 0.1 <= abs(value) < 1 else f"{value:.4g}"
