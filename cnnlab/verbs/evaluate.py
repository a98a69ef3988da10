"""`cnnlab evaluate RUN...`: the metrics of the best weights computed again, against those in result.json."""

import argparse
import contextlib
import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from cnnlab import provenance
from cnnlab.allowed import RequestError, number, truth, whole
from cnnlab.compose import Composer
from cnnlab.judge import packages
from cnnlab.quiet import quiet_libraries
from cnnlab.report.table import console
from cnnlab.runs.recorded import Run, RunParser, find
from cnnlab.runs.restored import BEST, as_trained, blaming, restored
from cnnlab.verbs.diff import ABSENT, Differences, change, spelled, unequal

HELP = """\
Compute the validation and test metrics of runs again, from config.yaml and
checkpoints/best.ckpt, and compare them with those in result.json. A RUN is its
folder, or the first digits of its id. Data, batch size, precision and threads
are the run's own; trusted=[PACKAGE] admits classes from outside cnnlab.

Into a run's folder it draws preprocessing.png, images as they are and as the
network gets them, and of a linear classifier templates.png, a class each.

With ensemble=true runs are judged together, by the mean of their probabilities:
the accuracy of each, and of all as one. A RUN may then be a folder of runs, of
which top=K takes the best on validation; one run alone gives its checkpoints.

On the machine that trained the run the bits are the same. With another one, or
with other versions, --tolerance says how far they may be apart.

Exit code: 0 all metrics are the same, or within the tolerance; 1 some are not;
2 there is no such run, it is not done, or its data are missing.
"""

# What may stand beside the runs, and what it may be.
WORDS: dict[str, Callable[[str, Any], Any]] = {
    "trusted": packages,
    "ensemble": truth,
    "top": functools.partial(whole, at_least=2),
}


def main(arguments: Sequence[str]) -> int:
    """Evaluate what the arguments of `cnnlab evaluate` ask for; returns the exit code."""
    parser = RunParser("evaluate", HELP)
    parser.add_argument("runs", nargs="*", metavar="RUN")
    tolerance_help = "the largest difference that is none (0: the same bits)"
    parser.add_argument("--tolerance", type=_tolerance, default=0.0, metavar="X", help=tolerance_help)
    if (asked := parser.asked(arguments)) is None:
        return 0
    lines = [line for line in asked.runs if line.partition("=")[0] in WORDS]
    names = [line for line in asked.runs if line not in lines]
    if not names:
        raise RequestError("evaluate: takes one RUN or more")
    words = _words(lines)
    trusted = words.get("trusted", [])
    if words.get("ensemble"):
        return _ensemble(names, asked.output_dir, words.get("top"), trusted)
    if "top" in words:
        raise RequestError(f"top={words['top']}: picks the members of an ensemble, which needs ensemble=true")
    runs = [find(name, asked.output_dir) for name in names]
    for run in runs:
        check(run)
    quiet_libraries()
    codes, evaluated = [0], list[tuple[Run, Differences]]()
    for run in runs:
        try:
            evaluated.append((run, compared(run, recomputed(run, trusted))))
        except RequestError as error:  # the others can be evaluated all the same
            print(error, file=sys.stderr)
            codes.append(2)
    show(evaluated, asked.tolerance)
    same = all(is_within(asked.tolerance, *pair) for _, pairs in evaluated for pair in pairs.values())
    return max(*codes, int(not same))


def _ensemble(names: Sequence[str], output_dir: str, top: int | None, trusted: Sequence[str]) -> int:
    from cnnlab.runs import ensemble

    members = ensemble.members(names, output_dir, top)
    quiet_libraries()
    ensemble.show(members, ensemble.judged(members, trusted))
    return 0


def check(run: Run) -> None:
    """Refuse a run that has no metrics of its best weights."""
    if run.result.status != "done":
        raise RequestError(f"{run.folder}: must be done to be evaluated, its status is {run.result.status}")
    if not (run.folder / BEST).is_file():
        raise RequestError(f"{run.folder}: no {BEST}, so no weights")


def recomputed(run: Run, trusted: Sequence[str] = ()) -> dict[str, float]:
    """`val/*` and `test/*` of a run's best weights, with its own data, precision, batch size and threads.

    Raises:
        RequestError: its data are missing, its checkpoint does not fit, or it names a class not trusted.
    """
    from cnnlab.build import build_data
    from cnnlab.monitor import templates

    config = as_trained(run, trusted)
    data = build_data(config)
    metrics: dict[str, float] = {}
    with blaming(run.folder / BEST):
        task, trainer = restored(run, config)
        for evaluate in (trainer.validate, trainer.test):
            metrics.update(*evaluate(task, data, verbose=False))
        with contextlib.suppress(OSError):  # a run may lie where nothing can be written
            templates.write(run.folder, task, data.val[0])
    return metrics


def compared(run: Run, metrics: Mapping[str, float]) -> Differences:
    """Metric -> as recorded, as recomputed."""
    recorded = {key: value for key, value in run.result.metrics.items() if key.startswith(("val/", "test/"))}
    return {key: (recorded.get(key, ABSENT), metrics.get(key, ABSENT)) for key in {**recorded, **metrics}}


def is_within(tolerance: float, recorded: Any, recomputed: Any) -> bool:
    """Whether two values are the same, bit by bit or but for a tolerance.

    >>> is_within(0, 0.5, 0.5), is_within(0, 0.5, 0.501), is_within(0.01, 0.5, 0.501)
    (True, False, True)
    >>> is_within(0, float("nan"), float("nan")), is_within(1, float("inf"), 1.0), is_within(1, 0.5, ABSENT)
    (True, False, False)
    """
    if repr(recorded) == repr(recomputed):
        return True
    return ABSENT not in (recorded, recomputed) and abs(recorded - recomputed) <= tolerance


def show(evaluated: Sequence[tuple[Run, Differences]], tolerance: float) -> None:
    """A row a metric; and where bits differ, what else is not as it was."""
    table = Table(box=None)
    for title in ("run", "metric"):
        table.add_column(title, no_wrap=True)
    for title in ("recorded", "recomputed", "difference"):
        table.add_column(title, justify="right", no_wrap=True)
    for run, pairs in evaluated:
        name = run.result.id
        for key, (then, now) in pairs.items():
            same = is_within(0, then, now)
            told = "same" if same else change(then, now)
            colour = "" if same else "yellow" if is_within(tolerance, then, now) else "red"
            table.add_row(name, key, spelled(then), spelled(now), told, style=colour)
            name = ""
    if evaluated:
        console.print(table)
    for run, pairs in evaluated:
        if not all(is_within(0, *pair) for pair in pairs.values()):
            for key, (then, now) in since(run).items():
                line = f"{run.result.id} {key}: {spelled(then)} then, {spelled(now)} now"
                console.print(line, soft_wrap=True, markup=False)


def since(run: Run) -> Differences:
    """What may explain other bits: device, commit, versions and sources that are not those of the run."""
    from cnnlab.trainer import build_trainer

    device = str(build_trainer(as_trained(run), []).strategy.root_device)
    told = [
        {"device": side["device"], "commit": side["git"]} | side["versions"] | side["sources"]
        for side in (asdict(run.result), provenance.of(run.config) | {"device": device})
    ]
    return {key: pair for key, pair in unequal(*told).items() if ABSENT not in pair}


def _words(lines: Sequence[str]) -> dict[str, Any]:
    """The values of KEY=VALUE, as every verb takes it: the last one holds."""
    words: dict[str, Any] = {}
    for override in Composer().parse(lines):
        key = override.key_or_group
        if override.is_sweep_override():
            raise RequestError(f"{override.input_line}: must be one value")
        try:
            words[key] = WORDS[key](key, override.value())
        except ValueError as error:
            raise RequestError(f"{override.input_line}: {str(error).removeprefix(f'{key} ')}") from error
    return words


def _tolerance(text: str) -> float:
    try:
        return number("it", float(text), at_least=0)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number >= 0, got {text}") from None
