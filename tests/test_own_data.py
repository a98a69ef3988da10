"""Anyone's data set in two files: a class and a YAML from outside the package go all the ways of ours."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import cnnlab
from cnnlab.data.promise import tensor
from cnnlab.history import History
from tests import isolated

ROOT = Path(cnnlab.__file__).parents[1]

SHAPES = '''
import numpy as np


class Shapes:
    """Squares and crosses on noise, drawn by a computer."""

    class_names = ("square", "cross")

    def __init__(self, *, count: int = 100) -> None:
        if count < 20:
            raise ValueError(f"count must be at least 20, got {count}")
        self.count = count

    def load(self):
        return self.part(self.count, 0), self.part(self.count // 2, 1)

    def part(self, count, seed):
        images = np.random.default_rng(seed).integers(0, 99, (count, 1, 8, 8), dtype=np.uint8)
        labels = np.arange(count) % 2
        images[labels == 0, :, 2:6, 2:6] = 255
        images[labels == 1, :, 3:5] = 255
        images[labels == 1, :, :, 3:5] = 255
        return images, labels
'''

QUICK = ["threads=1", "logger=none", "trainer.accelerator=cpu", "model.filters=[4]"]
OURS = ["--config-dir", "mine", "dataset=shapes"]


def put(folder: Path, module: str, source: str = SHAPES, knobs: str = "count: 100") -> None:
    """The two files: module.py, maybe in a package, and mine/dataset/shapes.yaml."""
    file = folder.joinpath(*module.split(".")).with_suffix(".py")
    file.parent.mkdir(exist_ok=True, parents=True)
    file.write_text(source)
    (folder / "mine" / "dataset").mkdir(parents=True)
    (folder / "mine" / "dataset" / "shapes.yaml").write_text(f"_target_: {module}.Shapes\n{knobs}\n")


def cli(*arguments: str, folder: Path) -> "subprocess.Popen[str]":
    """The command as its script starts it: the current folder is not where Python looks first."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "cnnlab", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def commands(code: Path, folder: Path, *lines: list[str]) -> list[tuple[int, str, str]]:
    """Exit code, stdout and stderr of several commands in a process whose packages lie in `code`."""
    return isolated.run(_commands, str(code), str(folder), lines)


def _commands(packages, folder, lines):
    from cnnlab.__main__ import command

    sys.path.append(packages)
    os.chdir(folder)
    answers = []
    for line in lines:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = command(line)
        answers.append((code, out.getvalue(), err.getvalue()))
    return answers


def numbers(folder: Path) -> tuple[dict[str, float], list[dict[str, float]]]:
    """The metrics and the history of the run in a folder, but for times."""
    (file,) = folder.rglob("result.json")
    result = json.loads(file.read_text())
    assert result["status"] == "done"
    rows = [result["metrics"], *History(file.with_name("history.csv")).rows()]
    metrics, *history = ({k: v for k, v in row.items() if not k.startswith("time/")} for row in rows)
    return metrics, history


def test_two_files_in_the_current_folder_train_and_a_killed_run_goes_on_to_the_same_bits(tmp_path):
    put(tmp_path, "my_data")
    line = [*OURS, "trusted=[my_data]", "dataset.count=40", "epochs=100", *QUICK]
    killed = cli(*line, "output_dir=killed", folder=tmp_path)
    while not list((tmp_path / "killed").rglob("last.ckpt")):
        assert killed.poll() is None, killed.stdout.read()
        time.sleep(0.01)
    killed.kill()
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    again = cli(*line, "output_dir=killed", folder=tmp_path)
    said, _ = again.communicate(timeout=120)
    assert again.returncode == 0, said
    ((code, *_),) = commands(tmp_path, tmp_path, [*line, "output_dir=whole"])
    assert code == 0
    assert numbers(tmp_path / "killed") == numbers(tmp_path / "whole")


def test_a_package_of_ones_own_goes_through_every_verb(tmp_path):
    code, work = tmp_path / "code", tmp_path / "work"
    put(code, "my_package.shapes")
    (code / "my_package" / "__init__.py").write_text("")
    work.mkdir()
    mine = ["--config-dir", str(code / "mine")]
    trusted = "trusted=[my_package]"
    line = [*mine, trusted, "dataset=shapes", "epochs=1", *QUICK]
    swept, listed, shown, checked = commands(
        code,
        work,
        ["-m", *line, "dataset.count=40,60"],
        ["list", "dataset", *mine],
        ["show", *mine, trusted, "dataset=shapes"],
        ["check", *mine, trusted, "dataset=shapes", "dataset.count=200", "epochs=1", *QUICK],
    )
    assert swept[0] == 0, swept
    runs = sorted((work / "outputs").rglob("result.json"))
    assert len(runs) == 2
    assert "my_package.shapes.Shapes" in json.loads(runs[0].read_text())["sources"]
    assert "shapes\tSquares and crosses on noise, drawn by a computer.\tcount=100\n" in listed[1]
    assert shown[0] == 0 and "2: square, cross" in shown[1] and (work / "show.png").is_file()
    assert checked[0] == 0 and "fail" not in checked[1], checked
    run = str(runs[0].parent)
    evaluated, untrusted, reported, repeated, again, wrong = commands(
        code,
        work,
        ["evaluate", run, trusted],
        ["evaluate", run],
        ["report", "outputs"],
        ["repro", run, *mine],
        ["-m", *line, "dataset.count=40,60"],
        [*line, "dataset.count=3"],
    )
    assert evaluated[0] == 0
    assert untrusted[0] == 2 and untrusted[2].count("\n") == 1 and "my_package.shapes.Shapes" in untrusted[2]
    assert reported[0] == 0 and "2 done" in reported[1]
    assert repeated[0] == 0 and trusted in repeated[1] and "dataset.count=" in repeated[1]
    assert again[0] == 0 and sorted((work / "outputs").rglob("result.json")) == runs
    assert (wrong[0], wrong[2]) == (2, "dataset=shapes dataset.count=3: must be at least 20, got 3\n")


# What `load` and `class_names` of a mistaken class are -> what is said of it.
MISTAKES = {
    "(images / 9, labels), None": "train images must be uint8 (N, C, H, W), got torch.float64 (40, 1, 8, 8)",
    "(np.repeat(images, 3, 1).transpose(0, 2, 3, 1), labels), None": (
        "train images must be (N, C, H, W), got (N, H, W, C): (40, 8, 8, 3)"
    ),
    "(images[:, 0], labels), None": "train images must be uint8 (N, C, H, W), got torch.uint8 (40, 8, 8)",
    "(images[:, 0, 0, 0], labels), None": "train images must be uint8 (N, C, H, W), got torch.uint8 (40,)",
    "(images, np.array(['a', 'b'] * 20)), None": "train labels must be numbers, got <U1 (40,)",
    "(images, labels + 1), None": "train labels must be 0..1, got 1..2",
    "(images, labels[1:]), None": "train labels must be 40 whole numbers, one an image, got torch.int64 (39,",
    "(images, labels * 0.5), None": (
        "train labels must be 40 whole numbers, one an image, got torch.float64 (40,)"
    ),
    "(images, None), None": "train labels must be numbers, got object ()",
    "([images[0], images[0, :, 1:]] * 20, labels), None": "train images must be of one shape: ",
    "(images, labels), None, None": "what load() returns must be (train, test), got a tuple of 3",
    "images, labels": "train must be (images, labels), got a ndarray of 40",
    "None": "what load() returns must be (train, test), got a NoneType",
    "(images, labels), images": "test must be (images, labels) or None, got a ndarray of 40",
    "(images, labels), (images[:0], labels[:0])": "test images must be at least one, got none",
    "(images, labels), (images[..., 1:], labels)": (
        "train and test images must have one shape, got train (1, 8, 8), test (1, 8, 7)"
    ),
    "(images, labels), None; del Shapes.class_names": "class_names must be a list of names, got None",
    "(images, labels), None; Shapes.class_names = 2": "class_names must be a list of names, got 2",
    "(images, labels), None; Shapes.superclasses = [0]": (
        "superclasses must be 2 whole numbers, one a class, got [0]"
    ),
    "1 / 0": "division by zero",
}

MISTAKEN = """
import numpy as np


class Shapes:
    def __init__(self, *, code: str = "") -> None:
        self.code = code

    def load(self):
        images, labels = np.zeros((40, 1, 8, 8), np.uint8), np.arange(40) % 2
        Shapes.class_names, Shapes.superclasses = ("a", "b"), None
        code, _, then = self.code.partition(";")
        given = eval(code)
        exec(then.strip())
        return given
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mistakes")
    put(folder, "my_data", MISTAKEN, "code: ''")
    lines = [[*OURS, "trusted=[my_data]", f'dataset.code="{code}"', *QUICK] for code in MISTAKES]
    return dict(zip(MISTAKES, commands(folder, folder, *lines), strict=True))


@pytest.mark.parametrize("code", MISTAKES)
def test_a_mistake_is_one_line_that_says_what_was_expected(answers, code):
    status, _, said = answers[code]
    assert status == 2 and said.count("\n") == 1 and "Traceback" not in said
    assert MISTAKES[code] in said and said.startswith("dataset=shapes")


@pytest.mark.parametrize(
    "given",
    [
        [*np.arange(24).reshape(2, 3, 4)],
        np.arange(24).reshape(2, 3, 4)[::-1].transpose(0, 2, 1),
        np.broadcast_to(np.arange(4, dtype=np.uint8), (3, 4)),
        np.arange(4).astype(">i8"),
        np.array([True, False]),
        [1, 0],
    ],
)
def test_arrays_of_any_layout_and_lists_are_taken_as_they_are(given):
    assert np.array_equal(tensor("labels", given), np.asarray(given))


def test_a_plain_array_is_not_copied():
    array = np.zeros(4, np.uint8)
    tensor("images", array)[0] = 7
    assert array[0] == 7
