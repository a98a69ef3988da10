"""`cnnlab report DIR...`: which variant won, by how much, at what cost, and whether one may believe it.

folders -> results (find.py) -> comparisons (findings.py) -> terminal, Markdown, CSV, one HTML page
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from cnnlab.allowed import RequestError
from cnnlab.report import sheet, text
from cnnlab.report.find import runs_below
from cnnlab.report.findings import check_metric, metric_of, report
from cnnlab.report.page import page
from cnnlab.report.printable import printable
from cnnlab.report.table import console
from cnnlab.verbs.parser import Parser

HELP = """\
Compare the runs in folders, at any depth: prints the tables and writes
DIR/report.html (of the first DIR), one page that needs no network.

  cnnlab report outputs
  cnnlab report outputs/mine --baseline conv=standard --metric val/loss
  cnnlab report outputs --format csv --output runs.csv

Runs that are equal but for the seed are one variant. Variants are compared
with the baseline seed by seed; the test set has no part in selecting.
"""
FORMATS = {"text": text.plain, "markdown": sheet.markdown, "csv": sheet.comma_separated, "html": page}


def main(arguments: Sequence[str]) -> int:
    """Report what the arguments of `cnnlab report` ask for; returns the exit code."""
    parser = _argument_parser()
    if (asked := parser.asked(arguments)) is None:
        return 0
    if asked.metric is not None:
        check_metric(asked.metric)
    folders = [Path(folder) for folder in asked.folders]
    for folder in folders:
        if not folder.is_dir():
            raise RequestError(f"report {folder}: no such folder")
    if not folders:
        raise RequestError("report: DIR is missing: the folders with the runs, as in `cnnlab report outputs`")
    found = runs_below(folders)
    if not found.runs:
        broken = f"; {found.broken[0]}" if found.broken else ""
        raise RequestError(f"report {' '.join(asked.folders)}: no result.json in it{broken}")
    title = f"cnnlab report {' '.join(asked.folders)}"
    made = report(found, asked.metric or metric_of(found), dict(asked.baseline), title)
    if asked.format is None:
        text.show(made, console)
        path = Path(asked.output) if asked.output else folders[0] / "report.html"
        _write(path, page(made))
        console.print(printable(f"\n{path}"), soft_wrap=True, markup=False)
        return 0
    content = printable(FORMATS[asked.format](made))
    if asked.output:
        _write(Path(asked.output), content)
    else:
        print(content, end="")
    return 0


def _argument_parser() -> Parser:
    parser = Parser("report", HELP)
    add = parser.add_argument
    add("folders", nargs="*", metavar="DIR", help="folders with runs, at any depth")
    add("--metric", metavar="NAME", help="to select by (val/accuracy, else val/loss); not test/*")
    add(
        "--baseline",
        action="append",
        default=[],
        type=_pair,
        metavar="KEY=VALUE",
        help="the runs to compare with; repeatable (the defaults)",
    )
    add("--format", choices=[*FORMATS], help="print this one form alone")
    add("--output", metavar="FILE", help="write to FILE instead")
    return parser


def _pair(line: str) -> tuple[str, str]:
    key, equals, value = line.partition("=")
    if not (key and equals):
        raise argparse.ArgumentTypeError(f"must be KEY=VALUE, as in conv=standard, got {line}")
    return key, value


def _write(path: Path, content: str) -> None:
    try:
        path.write_text(content, encoding="utf-8")
    except OSError as error:
        raise RequestError(f"report: {path}: {error.strerror}; --output FILE writes elsewhere") from error
