"""README is true: its commands run, its tree is the tree, its table is that of the committed results."""

import re
import shlex

import pytest

from cnnlab.__main__ import command
from cnnlab.compose import Composer
from cnnlab.registry import PACKAGE
from cnnlab.report import markdown

ROOT = PACKAGE.parent
README = (ROOT / "README.md").read_text()
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", README, re.S) for line in block.splitlines()]
QUICK = ("dataset=", "experiment=", "glob(")  # what is not: only composed here


def arguments(line: str) -> list[str]:
    program, *rest = shlex.split(line)
    assert program == "cnnlab"
    return rest


def is_quick(line: str) -> bool:
    return not any(slow in line for slow in QUICK)


@pytest.mark.parametrize("line", filter(is_quick, COMMANDS))
def test_a_command_of_the_readme_runs(line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command(arguments(line)) == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_readme_is_a_valid_one(line):
    match arguments(line):
        case ["-m", *lines]:
            lines = [line for line in lines if line != "--dry-run"]
            assert len(Composer().sweep(lines)) > 1
        case ["list" | "--help", *_]:
            assert is_quick(line)
        case ["check" | "show", *lines]:
            assert Composer().one(lines).id
        case ["bench", choice, *_]:
            assert Composer().sweep([choice])
        case lines:
            assert Composer().one(lines).id


def test_python_in_the_readme_runs():
    for block in re.findall(r"```python\n(.*?)```", README, re.S):
        exec(block, {})


def test_the_two_first_commands_come_first():
    assert re.findall(r"^    (make \w+)", README, re.M) == ["make demo", "make test"]


def test_the_tree_of_the_readme_is_the_tree():
    tree = re.search(r"```\ncnnlab/\n((?:  .*\n)*)((?:\w+/.*\n)*)```", README)
    assert tree is not None
    named = {name for line in tree[1].splitlines() for name in re.findall(r"\b\w+(?:\.py|/)(?=  |$)", line)}
    found = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py"}
    assert named == found | {f"{path.parent.name}/" for path in PACKAGE.glob("*/__init__.py")}
    for folder in re.findall(r"^\w+/", tree[2], re.M):
        assert (ROOT / folder).is_dir()


def test_the_table_of_the_readme_is_that_of_the_committed_results():
    results = markdown.read(ROOT / "tests" / "reference")
    assert len(results) == 3
    assert markdown.replace(README, markdown.table(results)) == README
