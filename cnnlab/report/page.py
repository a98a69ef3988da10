"""A report as one HTML page that needs nothing else: no script, no font, no network."""

from collections.abc import Iterable
from pathlib import Path
from xml.etree.ElementTree import Element

from cnnlab.report.findings import Findings, Report
from cnnlab.report.gallery import Gallery
from cnnlab.report.grids import Grid, compared, costs, metrics, problems, selection
from cnnlab.report.markup import Node, element, render

STYLE = Path(__file__).with_name("page.css")


def page(report: Report) -> str:
    """The whole document."""
    facts = [
        part for name, fact in report.facts.items() for part in (element("dt", name), element("dd", fact))
    ]
    many = len(report.findings) > 1
    body = [
        element("h1", report.title),
        element("dl", *facts),
        *(part for findings in report.findings for part in _section(findings, report.metric, heading=many)),
        *_not_done(report),
    ]
    head = [
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", report.title),
        element("style", STYLE.read_text()),
    ]
    root = element("html", element("head", *head), element("body", element("main", *body)), lang="en")
    return f"<!DOCTYPE html>\n{render(root)}\n"


def _section(findings: Findings, metric: str, *, heading: bool) -> Iterable[Element]:
    """The runs on one data set."""
    if heading:
        yield element("h2", findings.section.name)
    yield element("p", selection(findings, metric), class_="answer")
    if findings.whole is None:
        return
    gallery = Gallery(findings, metric)
    yield _table(compared(findings.whole, metric))
    yield element("div", *gallery.decision(), class_="plots")
    for comparison in findings.by:
        yield _table(compared(comparison, metric))
    for grid in (*metrics(findings.ranked, metric), costs(findings.ranked, metric)):
        yield _table(grid)
    yield element("div", *gallery.costs(), class_="plots")


def _not_done(report: Report) -> Iterable[Element]:
    if (grid := problems(report)) is not None:
        yield _table(grid)
    if report.broken:
        yield element("h3", "not read")
        yield element("ul", *(element("li", line) for line in report.broken))


def _table(grid: Grid) -> Element:
    head = element("tr", *(element("th", name, scope="col") for name in grid.header))
    rows = [
        element(
            "tr",
            element("th", *_lines(row[0]), scope="row"),
            *(element("td", *_lines(cell)) for cell in row[1:]),
            **({"class_": "selected"} if i == grid.selected else {}),
        )
        for i, row in enumerate(grid.rows)
    ]
    table = element("table", element("thead", head), element("tbody", *rows))
    # A region that scrolls must be reachable by keyboard.
    scroll = element("div", table, class_="scroll", tabindex=0, role="region", aria_label=grid.title)
    note = [element("p", grid.note, class_="note")] if grid.note else []
    return element("section", element("h3", grid.title), scroll, *note, class_=grid.kind)


def _lines(cell: str) -> list[Node]:
    """The first line, and the others smaller below it."""
    first, *others = cell.split("\n")
    return [first, *(element("small", line) for line in others)]
