"""`cnnlab diff RUN RUN`: in what two runs differ, read from their folders without torch."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table
from rich.text import Text

from cnnlab.allowed import RequestError
from cnnlab.config import flatten, is_essential, shown
from cnnlab.report.table import console, number
from cnnlab.runs.recorded import Run, RunParser, find

HELP = """\
In what two runs differ. A RUN is its folder, or the first digits of its id.

What is equal is not shown. Exit code: 0 where they differ in circumstances
alone; 1 where configuration, code or result differ; 2 the request was wrong.
"""

# The sections of the table; the last is how and where the runs were made, not what they are.
CONFIGURATION, CODE, RESULT, CIRCUMSTANCES = "configuration", "source of", "result", "circumstances"

OUTCOME = ("status", "error", "best_epoch", "epochs_done", "match", "params", "macs")
MAKING = ("git", "device", "precision", "threads", "shared", "wall_s", "images_per_s", "peak_memory_mb")


class Absent:
    """Stands where only the other run has a value."""

    def __repr__(self) -> str:
        return "-"


ABSENT = Absent()

Differences = dict[str, tuple[Any, Any]]  # key -> value of the one run, value of the other


def main(arguments: Sequence[str]) -> int:
    """Show what the arguments of `cnnlab diff` ask for; returns the exit code."""
    parser = RunParser("diff", HELP)
    parser.add_argument("runs", nargs="*", metavar="RUN")
    if (asked := parser.asked(arguments)) is None:
        return 0
    if len(asked.runs) != 2:
        raise RequestError(f"diff: takes two RUNs, got {len(asked.runs)}")
    one, other = (find(name, asked.output_dir) for name in asked.runs)
    found = differences(one, other)
    show(one, other, found)
    return int(any(found[section] for section in (CONFIGURATION, CODE, RESULT)))


def differences(one: Run, other: Run) -> dict[str, Differences]:
    """Section -> what differs there."""
    results = asdict(one.result), asdict(other.result)
    metrics = [{k: v for k, v in r["metrics"].items() if not k.startswith("time/")} for r in results]
    flat = flatten(one.config.tree), flatten(other.config.tree)
    chosen = unequal(one.config.choices, other.config.choices)
    tree = {key: pair for key, pair in unequal(*flat).items() if not _implied(key, pair, chosen, one, other)}
    sources = unequal(*(result["sources"] for result in results))
    return {
        CONFIGURATION: {key: pair for key, pair in (chosen | tree).items() if is_essential(key)},
        CODE: {name: pair for name, pair in sources.items() if ABSENT not in pair},  # else chosen otherwise
        RESULT: unequal(*(pick(result, OUTCOME) for result in results)) | unequal(*metrics),
        CIRCUMSTANCES: {key: pair for key, pair in (chosen | tree).items() if not is_essential(key)}
        | unequal(*(pick(result, MAKING) | result["versions"] for result in results)),
    }


def unequal(one: Mapping[str, Any], other: Mapping[str, Any]) -> Differences:
    """The keys whose values differ, or that only one of the two has.

    >>> unequal({"rho": 1.0, "seed": 0, "beta": float("nan")}, {"rho": 2.0, "seed": 0, "beta": float("nan")})
    {'rho': (1.0, 2.0)}
    >>> unequal({}, {"rho": None})
    {'rho': (-, None)}
    """
    pairs = {key: (one.get(key, ABSENT), other.get(key, ABSENT)) for key in {**one, **other}}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1] and repr(pair[0]) != repr(pair[1])}


def pick(values: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    return {key: values[key] for key in keys}


def _implied(key: str, pair: tuple[Any, Any], chosen: Differences, one: Run, other: Run) -> bool:
    """Whether a key differs only because another word was chosen, which has or has not this knob."""
    if key.partition(".")[0] not in chosen or key in {**one.config.values, **other.config.values}:
        return False
    return key.endswith("._target_") or ABSENT in pair


def show(one: Run, other: Run, found: Mapping[str, Differences]) -> None:
    console.print(f"a  {one.folder}\nb  {other.folder}", soft_wrap=True, markup=False)
    if not any(found.values()):
        console.print("nothing differs")
        return
    table = Table(box=None)
    table.add_column("", style="cyan", overflow="fold")
    for title in ("a", "b", "b - a"):
        table.add_column(title, justify="right", overflow="fold")
    for section, pairs in found.items():
        if pairs:
            table.add_section()
            table.add_row(Text(section, style="bold"))
        for key, (a, b) in pairs.items():
            table.add_row(Text(key), *(Text(spelled(value)) for value in (a, b)), change(a, b))
    console.print(table)


def spelled(value: Any) -> str:
    """A value, of measurements the digits that tell something.

    >>> spelled(0.7708333134651184), spelled(1495552), spelled([8, 16]), spelled(None), spelled(ABSENT)
    ('0.770833', '1495552', '[8,16]', 'null', '-')
    """
    return f"{value:.6g}" if isinstance(value, float) else shown(value)


def change(one: Any, other: Any) -> str:
    """The difference of two quantities.

    >>> change(0.75, 0.5), change(2, 2.00000001), change(67562, 134634), change(True, False), change("a", "b")
    ('-0.2500', '+1e-08', '+67072', '', '')
    """
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in (one, other)):
        return ""
    difference = other - one
    return "+" * (difference > 0) + (number(difference) if isinstance(difference, float) else str(difference))
