"""`cnnlab list [GROUP]`: the groups, or the words of one with what they do and their knobs.

All of it is read from the folders and from source: nothing is listed by hand, torch is not imported.

>>> main(["schedule"])  # doctest: +ELLIPSIS
constant...
0
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from cnnlab.allowed import RequestError, did_you_mean
from cnnlab.config import default_words, flatten, shown
from cnnlab.registry import CONF, check_config_dir
from cnnlab.signature import Definition, find, said, signature
from cnnlab.verbs.parser import Parser


class Entry(NamedTuple):
    word: str
    summary: str
    knobs: list[str]  # "rho=1.0", as the command line takes them
    origin: str = ""  # of data: source and licence


def main(argv: Sequence[str]) -> int:
    parser = Parser("list", "The groups, or the words of one with what they do and their knobs.")
    parser.add_argument("group", nargs="?", metavar="GROUP", help="list the words of this group")
    parser.add_argument("--config-dir", "-cd", metavar="DIR", help="your own YAMLs, listed with the others")
    if (asked := parser.asked(argv)) is None:
        return 0

    folders = [CONF]
    if asked.config_dir is not None:
        check_config_dir(Path(asked.config_dir))
        folders.append(Path(asked.config_dir))
    found = groups(folders)
    if asked.group is None:
        show_groups(found)
    elif asked.group in found:
        show_words([entry(path) for _, path in sorted(found[asked.group].items())])
    else:
        near = did_you_mean(asked.group, found) or f"; there are {', '.join(sorted(found))}"
        raise RequestError(f"list {asked.group}: no such group{near}")
    return 0


def groups(folders: Sequence[Path]) -> dict[str, dict[str, Path]]:
    """Each group's words and their files."""
    found: dict[str, dict[str, Path]] = {}
    for folder in folders:
        for path in folder.glob("**/*.yaml"):
            group = path.parent.relative_to(folder).as_posix()  # hydra/launcher is one too
            if not group.startswith((".", "_")):
                found.setdefault(group, {}).setdefault(path.stem, path)
    return found


def show_groups(found: dict[str, dict[str, Path]]) -> None:
    defaults = default_words()
    width = max(map(len, found))
    for group, words in sorted(found.items()):
        count = f"{len(words)} word{'s' * (len(words) != 1)}"
        print(f"{group:{width}}  {count:>8}  {defaults.get(group, '')}".rstrip())


def show_words(entries: Sequence[Entry]) -> None:
    """A table on a terminal; elsewhere a line for each word, its parts set off by tabs."""
    if not sys.stdout.isatty():
        for word, summary, knobs, origin in entries:
            print(word, summary, " ".join(knobs), *[origin] * bool(origin), sep="\t")
        return
    from rich.console import Console  # 60 ms
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(min_width=max((len(entry.word) for entry in entries), default=0), overflow="fold")
    table.add_column(overflow="fold")
    for word, summary, knobs, origin in entries:
        parts = [Text(text) for text in (summary, origin) if text] + [Text(" ".join(knobs), "dim")] * bool(
            knobs
        )
        table.add_row(Text(word, "bold"), Text("\n").join(parts))
    Console().print(table)


def entry(path: Path) -> Entry:
    """What a YAML says: its own first comment, else the summary of its class; and its knobs."""
    knobs = read(path)
    target = knobs.pop("_target_", "")
    called = signature(target)
    knobs.pop("defaults", None)
    summary = first_comment(path) or (called.summary if called else "")
    values = [f"{key}={shown(value)}" for key, value in flatten(knobs).items()]
    return Entry(path.stem, summary, values, origin(target) if called else "")


def origin(target: str) -> str:
    """Where a class whose docstring tells a licence says its data come from, and the licence.

    >>> origin("cnnlab.data.svhn.SVHN")[-47:]
    'Learning. Licence: for non-commercial use only.'
    """
    found = find(target, set())
    text = said(found) if isinstance(found, Definition) else None
    told = re.findall(r"^ *((?:Source|Licence): .*)", text or "", re.MULTILINE)
    return " ".join(told) if any(line.startswith("Licence") for line in told) else ""


def read(path: Path) -> dict[str, Any]:
    try:
        node = OmegaConf.to_container(OmegaConf.load(path))
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        raise RequestError(f"{path}: {' '.join(str(error).split())}") from error
    if not isinstance(node, dict):
        raise RequestError(f"{path}: must hold `name: value` lines, got {type(node).__name__}")
    return {str(key): value for key, value in node.items()}


def first_comment(path: Path) -> str:
    """The first comment above the keys that is not Hydra's `# @package`."""
    for line in path.read_text(encoding="utf-8").splitlines():
        comment = line.lstrip("# ").rstrip()
        if line.strip() and not line.startswith("#"):
            break
        if comment and not comment.startswith("@package"):
            return comment
    return ""
