"""What must stand beside every number: runs, seeds, data, hardware, software."""

from collections.abc import Iterable, Sequence

from cnnlab.report.variants import Section
from cnnlab.result import Result

SOFTWARE = ("cnnlab", "torch")


def facts(sections: Sequence[Section], repeated: int) -> dict[str, str]:
    """The facts by name; `repeated` runs are left out of the sections."""
    variants = [variant for section in sections for variant in section.variants]
    results = [run.result for variant in variants for run in variant.runs.values()]
    done = [result for result in results if result.status == "done"]
    runs = f"{len(done)} done, {len(results) - len(done)} not"
    told = {
        "runs": runs + (f"; {repeated} left out, since the same was run again" if repeated else ""),
        "seeds": f"{spans({result.seed for result in results})}; {_folds(results)}"
        f"n = {spans({len(variant.done) for variant in variants})} a variant",
        "data": _each(section.name for section in sections),
        "hardware": _each(map(_hardware, done)),
        "software": _each(map(_software, done)),
        "finished": _each(sorted((result.finished or "")[:10] for result in done)),
    }
    return {name: fact for name, fact in told.items() if fact}


def _folds(results: Sequence[Result]) -> str:
    folds = {result.replicate[1] for result in results}
    return f"folds {spans(folds)}; " if len(folds) > 1 else ""


def _hardware(result: Result) -> str:
    threads = f"{result.threads} thread{'s' * (result.threads > 1)}" if result.threads else ""
    shared = "shared with other runs" if result.shared else ""
    return ", ".join(filter(None, (result.device, threads, result.precision, shared)))


def _software(result: Result) -> str:
    versions = [f"{name} {result.versions[name]}" for name in SOFTWARE if name in result.versions]
    return ", ".join([*versions, *([f"commit {result.git}"] if result.git else [])])


def _each(told: Iterable[str]) -> str:
    """Different facts, each once."""
    return "; ".join(filter(None, dict.fromkeys(told)))


def spans(numbers: Iterable[int]) -> str:
    """Whole numbers as ranges.

    >>> spans([0, 1, 2, 5])
    '0-2, 5'
    """
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in ranges)
