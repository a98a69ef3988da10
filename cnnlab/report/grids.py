"""Findings as grids of words: what a terminal, Markdown and HTML show alike."""

from collections.abc import Sequence
from dataclasses import dataclass

from cnnlab.report.comparison import Comparison, Row
from cnnlab.report.costs import COSTS, front, mean_cost
from cnnlab.report.findings import Findings, Report
from cnnlab.report.statistics import MOST_SEEDS, Estimate, estimate
from cnnlab.report.table import number
from cnnlab.report.variants import Variant
from cnnlab.result import rises

ALSO_SHOWN = ("ortho/loss", "conv/violation")


@dataclass
class Grid:
    title: str
    header: list[str]  # the first column is the name of a row
    rows: list[list[str]]  # a cell may have several lines
    note: str = ""
    kind: str = ""  # compared or problems: how a page sets it
    selected: int | None = None  # the row to stand out


def grids(findings: Findings, metric: str) -> list[Grid]:
    """Of one data set: who is better, what else came out, at which cost; then by each key that varies."""
    if findings.whole is None:
        return []
    whole, *by = (compared(comparison, metric) for comparison in (findings.whole, *findings.by))
    return [whole, *metrics(findings.ranked, metric), costs(findings.ranked, metric), *by]


def selection(findings: Findings, metric: str) -> str:
    """Which variant has been picked, and what that does to its number."""
    if findings.whole is None:
        return f"No run with a finite {metric} is done."
    best, *others = findings.whole.rows
    name, score = ", ".join(best.label), f"{mean_and_deviation(best.score)}, n = {best.score.n}"
    if not others:
        return f"{name}: {metric} {score}."
    test = f"test/{metric.partition('/')[2]}"
    untouched = f"; its {test} had no part in the choice" if findings.ranked[0].scores(test) else ""
    return (
        f"Selected as the best of {len(findings.whole.rows)} by {metric}: {name} ({score}). "
        f"Selection flatters: the best of several is in part lucky, so expect less of new seeds{untouched}."
    )


def compared(comparison: Comparison, metric: str) -> Grid:
    decimals = places(comparison.baseline.score.mean)
    selects = comparison.key is None and len(comparison.rows) > 1
    rows = [
        [
            ", ".join(row.label),
            str(row.score.n),
            _lines(mean_and_deviation(row.score), interval(row.score)),
            _difference(row, decimals),
            _lines(_verdict(row), f"selected, best of {len(comparison.rows)}" if selects and i == 0 else ""),
        ]
        for i, row in enumerate(comparison.rows)
    ]
    name = comparison.key or "variant"
    note = (
        "As above; a seed counts once, with its mean over all else that varies, in which pairs agree."
        if comparison.key
        else "Mean ± standard deviation over n seeds (of one seed, folds), below it the 95 % t interval."
    )
    if comparison.tests:
        note += (
            f" Differences to {', '.join(comparison.baseline.label)} are paired by seed; their t intervals "
            f"are Holm-corrected over {comparison.tests} comparison{'s' * (comparison.tests != 1)}, "
            "5 % together."
        )
    title = f"{metric} by {name} ({'more' if rises(metric) else 'less'} is better)"
    return Grid(
        title, [name, "n", metric, "difference", "verdict"], rows, note, "compared", 0 if selects else None
    )


def metrics(variants: Sequence[Variant], metric: str) -> list[Grid]:
    names = [f"test/{metric.partition('/')[2]}", *(name for name in ALSO_SHOWN if name != metric)]
    names = [name for name in names if any(variant.scores(name) for variant in variants)]
    rows = [
        [", ".join(variant.label), *(_spread([*variant.scores(name).values()]) for name in names)]
        for variant in variants
    ]
    note = "Shown, not selected by: test metrics are those of the epoch that was best on validation."
    return [Grid("other metrics", ["variant", *names], rows, note)] if names else []


def costs(variants: Sequence[Variant], metric: str) -> Grid:
    rows = [[", ".join(variant.label)] for variant in variants]
    for cost in COSTS:
        on_front = front(variants, cost, metric)
        for i, (row, variant) in enumerate(zip(rows, variants, strict=True)):
            mean = mean_cost(variant, cost)
            mark = "* " if i in on_front else "~" if cost.is_timed and variant.shared else ""
            row.append("-" if mean is None else f"{mark}{amount(mean)}")
    note = f"*: on the Pareto front, no variant has a better mean {metric} at no more of this cost."
    if any(variant.shared for variant in variants):
        note += " ~: measured while other runs shared the machine; such times are not ranked."
    return Grid("cost", ["variant", *(cost.name for cost in COSTS)], rows, note)


def problems(report: Report) -> Grid | None:
    """Runs that are not done, with the first line of their error."""
    rows = [
        [name, run.result.status, (run.result.error or "").strip().partition("\n")[0], str(run.folder)]
        for name, run in report.unfinished
    ]
    return Grid("not done", ["run", "status", "error", "folder"], rows, kind="problems") if rows else None


def mean_and_deviation(e: Estimate) -> str:
    """Both to the same decimal.

    >>> mean_and_deviation(estimate([0.96, 0.98])), mean_and_deviation(estimate([37.4871]))
    ('0.9700 ± 0.0141', '37.49')
    """
    if e.deviation is None:
        return number(e.mean)
    tiny = "e" in number(e.mean)
    return f"{number(e.mean)} ± {number(e.deviation) if tiny else f'{e.deviation:.{places(e.mean)}f}'}"


def interval(e: Estimate, decimals: int | None = None, sign: str = "") -> str:
    if e.interval is None:
        return ""
    decimals = places(e.mean) if decimals is None else decimals
    low, high = (f"{end:{sign}.{decimals}f}" for end in e.interval)
    return f"[{low}, {high}]"


def places(value: float) -> int:
    """Decimals with which a number is shown."""
    digits, _, exponent = number(value).partition("e")
    return len(digits.partition(".")[2]) - int(exponent or 0)


def amount(value: float) -> str:
    """Three digits and a unit's prefix.

    >>> amount(67562), amount(1.5e9), amount(12.34), amount(0.5)
    ('67.6k', '1.5G', '12.3', '0.5')
    """
    for size, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{prefix}"
    return f"{value:.3g}"


def _spread(values: list[float]) -> str:
    return mean_and_deviation(estimate(values)) if values else "-"


def _difference(row: Row, decimals: int) -> str:
    if row.difference is None:
        return "" if row.verdict == "baseline" else "-"
    return _lines(f"{row.difference.mean:+.{decimals}f}", interval(row.difference, decimals, "+"))


def _verdict(row: Row) -> str:
    """With the number of seeds that would do, or why none is known."""
    if row.difference is None or row.verdict in ("better", "worse"):
        return row.verdict
    if row.difference.n < 2:
        return f"{row.verdict}: one pair"
    if not row.difference.deviation:
        return "the same numbers" if not row.difference.mean else f"{row.verdict}: no spread between seeds"
    needed = row.difference.seeds_needed
    return f"{row.verdict}: about {needed} would" if needed else f"{row.verdict}: over {MOST_SEEDS:,} would"


def _lines(*lines: str) -> str:
    return "\n".join(filter(None, lines))
