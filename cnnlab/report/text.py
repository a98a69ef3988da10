"""A report in the terminal."""

import io

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from cnnlab.report.findings import Report
from cnnlab.report.grids import Grid, grids, problems, selection
from cnnlab.report.printable import printable


def plain(report: Report) -> str:
    """As it is printed, 80 columns wide and without colours."""
    console = Console(file=io.StringIO(), width=80)
    show(report, console)
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()) + "\n"


def show(report: Report, console: Console) -> None:
    """The whole report, what is asked first comes first."""
    for name, fact in report.facts.items():
        console.print(Text.assemble((f"{name + ':':<10}", "cyan"), printable(fact)))
    for findings in report.findings:
        console.print()
        if len(report.findings) > 1:
            console.print(_said(findings.section.name, "bold underline"))
        console.print(_said(selection(findings, report.metric)))
        for grid in grids(findings, report.metric):
            _show(grid, console)
    if (failures := problems(report)) is not None:
        console.print(_said("\nnot done", "bold red"))
        for name, status, error, folder in failures.rows:
            console.print(_said(f"{name}: {status}{f': {error}' if error else ''}"))
            console.print(Padding(_said(folder, "dim"), (0, 0, 0, 2)), soft_wrap=True)
    for line in report.broken:
        console.print(_said(f"skipped {line}", "yellow"), soft_wrap=True)


def _show(grid: Grid, console: Console) -> None:
    table = Table(
        box=None, title=_said(f"\n{grid.title}", "bold"), title_justify="left", padding=(0, 1, 0, 0)
    )
    first, *others = grid.header
    table.add_column(first, overflow="fold")
    for name in others:
        verdict = name == "verdict"
        table.add_column(name, justify="left" if verdict else "right", no_wrap=not verdict)
    for i, row in enumerate(grid.rows):
        table.add_row(*map(_said, row), style="bold" if i == grid.selected else None)
    console.print(table)
    console.print(_said(grid.note, "dim"))


def _said(words: str, style: str = "") -> Text:
    return Text(printable(words), style)
