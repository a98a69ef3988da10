"""`cnnlab check OVERRIDES...`: every check of this package on one configuration.

overrides -> configuration -> Subject -> a Finding of each check -> a table
"""

import importlib
import pkgutil
import textwrap
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

import cnnlab.check
from cnnlab.allowed import RequestError, one_of
from cnnlab.check.finding import Finding
from cnnlab.compose import Composer
from cnnlab.quiet import quiet_libraries
from cnnlab.report.table import console
from cnnlab.signature import signature
from cnnlab.terminal import announce
from cnnlab.verbs.parser import Parser

HELP = """\
Check a configuration before it is trained: is the gradient right, does it learn
what it must, and nothing that it must not? OVERRIDES choose as they do for
training. Each check passes, warns or fails, with the figure it rests on; what a
configuration lacks is skipped. Nothing is written.
"""

EXIT = """\
Exit code: 0 nothing failed; 1 something did; 2 the request was wrong.
"""

STYLES = {"pass": "green", "warn": "yellow", "fail": "bold red", "skip": "dim"}


def main(arguments: Sequence[str]) -> int:
    """Check what the arguments of `cnnlab check` ask for; returns the exit code."""
    checks = available()
    parser = argument_parser(checks)
    if (asked := parser.asked(arguments)) is None:
        return 0
    try:
        names = [one_of("--only", name, checks) for name in asked.only or checks]
    except ValueError as error:
        raise RequestError(f"check: {error}") from error
    config = Composer(asked.config_dir).one(asked.overrides)
    announce("reading the data, building the network")
    quiet_libraries()
    from cnnlab.check.subject import Subject  # torch and Lightning: seconds

    try:
        subject, findings = Subject(config), {}
        for number, name in enumerate(names, 1):
            announce(f"[{number}/{len(names)}] {name}: {checks[name]}")
            findings[name] = finding(name, subject)
    except SystemExit as ended:  # Lightning's answer to Ctrl-C
        raise KeyboardInterrupt from ended
    finally:
        announce("")
    show(findings)
    return int(any(found.verdict == "fail" for found in findings.values()))


def available() -> dict[str, str]:
    """The checks of this package, and what each of them checks, read without importing them."""
    modules = [module.name for module in pkgutil.iter_modules(cnnlab.check.__path__)]
    found = {name: signature(f"{cnnlab.check.__name__}.{name}.check") for name in modules}
    return {name: check.summary for name, check in found.items() if check is not None}


def finding(name: str, subject: Any) -> Finding:
    """What a check finds; one that breaks off has found a fault."""
    try:
        return importlib.import_module(f"{cnnlab.check.__name__}.{name}").check(subject)
    except RequestError:
        raise
    except Exception as error:
        return Finding("fail", type(error).__name__, " ".join(str(error).split()))


def show(findings: dict[str, Finding]) -> None:
    """A row a check, and how many came out how."""
    table = Table(box=None)
    table.add_column("check", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("figure", overflow="fold", max_width=22)
    table.add_column("")
    for name, found in findings.items():
        verdict = Text(found.verdict, style=STYLES[found.verdict])
        table.add_row(name, verdict, Text(found.figure), Text(found.words))
    console.print(table)
    counts: Counter[str] = Counter(found.verdict for found in findings.values())
    console.print(", ".join(f"{counts[verdict]} {verdict}" for verdict in STYLES if counts[verdict]))


def argument_parser(checks: dict[str, str]) -> Parser:
    listed = "\n".join(
        textwrap.fill(f"{what}", 80, initial_indent=f"  {name:<14} ", subsequent_indent=" " * 17)
        for name, what in checks.items()
    )
    parser = Parser("check", HELP, f"The checks\n{listed}\n\n{EXIT}")
    add = parser.add_argument
    add("overrides", nargs="*", metavar="OVERRIDES", help="GROUP=WORD, GROUP.KNOB=VALUE, KEY=VALUE")
    add("--only", action="append", metavar="CHECK", help="this check alone; repeatable")
    add("--config-dir", "-cd", metavar="DIR", help="your own YAML files")
    return parser
