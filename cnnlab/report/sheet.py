"""A report for other programs: Markdown, and a line of CSV per variant with every digit."""

import csv
import io

from cnnlab.report.costs import COSTS, mean_cost
from cnnlab.report.findings import Report
from cnnlab.report.grids import Grid, grids, problems, selection
from cnnlab.report.statistics import Estimate


def markdown(report: Report) -> str:
    parts = [f"# {report.title}", "\n".join(f"- {name}: {fact}" for name, fact in report.facts.items())]
    for findings in report.findings:
        if len(report.findings) > 1:
            parts.append(f"## {findings.section.name}")
        parts.append(selection(findings, report.metric))
        parts += [_table(grid) for grid in grids(findings, report.metric)]
    if (grid := problems(report)) is not None:
        parts.append(_table(grid))
    if report.broken:
        parts.append("\n".join(f"- skipped {line}" for line in report.broken))
    return "\n\n".join(parts) + "\n"


def _table(grid: Grid) -> str:
    rows = [grid.header, ["---", *("---:" for _ in grid.header[1:])], *map(_cells, grid.rows)]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return "\n\n".join(filter(None, (f"### {grid.title}", table, grid.note.replace("*:", "\\*:"))))


def _cells(row: list[str]) -> list[str]:
    """What a cell holds must not end it."""
    return [
        cell.strip()
        .replace("\\", "\\\\")
        .replace("|", "\\|")
        .replace("<", "&lt;")
        .replace("*", "\\*")
        .replace("\n", "<br>")
        for cell in row
    ]


def comma_separated(report: Report) -> str:
    """A line per variant, the best first; what is not known is empty."""
    lines: list[dict[str, object]] = []
    for findings in report.findings:
        rows = findings.whole.rows if findings.whole else []
        for row, variant in zip(rows, findings.ranked, strict=True):
            line: dict[str, object] = {"data": findings.section.name, "variant": ", ".join(row.label)}
            line |= {key: variant.value(key) for key in findings.section.keys}
            seeds, folds = map(dict.fromkeys, zip(*variant.scores(report.metric), strict=True))
            line |= {"seeds": " ".join(map(str, seeds))}
            line |= {"folds": " ".join(map(str, folds))} if len(folds) > 1 else {}
            line |= _columns(report.metric, row.score) | _columns("difference", row.difference)
            line |= {"verdict": row.verdict}
            names = dict.fromkeys(name for run in variant.done for name in run.result.metrics)
            for name in names:
                scores = variant.scores(name).values()
                if name != report.metric and scores:
                    line[name] = sum(scores) / len(scores)
            lines.append(line | {cost.name: mean_cost(variant, cost) for cost in COSTS})
    columns = dict.fromkeys(column for line in lines for column in line)
    file = io.StringIO()
    writer = csv.DictWriter(file, [*columns], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return file.getvalue()


def _columns(name: str, e: Estimate | None) -> dict[str, object]:
    low, high = (e.interval if e else None) or ("", "")
    mean, deviation, n = (e.mean, e.deviation, e.n) if e else ("", "", "")
    return {name: mean, f"{name} sd": deviation, f"{name} n": n, f"{name} low": low, f"{name} high": high}
