"""diff: what differs is listed, what is equal or implied is not; the exit code says whether it matters."""

import subprocess
import sys

import pytest

from cnnlab.allowed import RequestError
from cnnlab.runs.recorded import find
from cnnlab.verbs.diff import ABSENT, differences, main
from tests.recording import KNOWN, record


def sections(one, other):
    """The sections that are not empty."""
    found = differences(find(str(one)), find(str(other)))
    return {section: pairs for section, pairs in found.items() if pairs}


def test_runs_that_are_the_same_but_for_circumstances_exit_with_0(tmp_path, capsys):
    one = record(tmp_path / "a")
    metrics = {**KNOWN["metrics"], "time/images_per_s": 5.0}
    versions = {**KNOWN["versions"], "torch": "2.14.0"}
    made = {"threads": 2, "wall_s": 9.0, "git": "fff", "device": "cuda:0"}
    other = record(tmp_path / "b", "name=x", metrics=metrics, versions=versions, **made)
    assert sections(one, other) == {
        "circumstances": {
            "name": ("default", "x"),
            "output_dir": (str(tmp_path / "a"), str(tmp_path / "b")),
            "git": ("0123abc", "fff"),
            "device": ("cpu", "cuda:0"),
            "threads": (1, 2),
            "wall_s": (0.0, 9.0),
            "torch": ("2.13.0+cpu", "2.14.0"),
        }
    }
    assert main([str(one), str(other)]) == 0
    assert main([str(one), str(one)]) == 0
    assert capsys.readouterr().out.endswith("nothing differs\n")


def test_a_word_stands_for_the_knobs_that_come_with_it(tmp_path):
    one = record(tmp_path, "conv=standard")
    other = record(tmp_path, "conv=decoupled_tanh", "conv.rho=2")
    assert sections(one, other)["configuration"] == {
        "conv": ("standard", "decoupled_tanh"),
        "conv.rho": (ABSENT, 2),
    }
    mix = record(tmp_path, "conv=decoupled_mix")
    changed = sections(other, mix)["configuration"]
    assert changed["conv.beta"] == (0.5, 1.0), "a knob of both whose default differs"
    assert changed["conv.rho"] == (2, 1.0)
    assert set(changed) == {"conv", "conv.beta", "conv.rho"}


def test_metrics_stand_side_by_side_with_their_difference(tmp_path, capsys):
    one = record(tmp_path / "a")
    other = record(tmp_path / "b", metrics={"val/accuracy": 0.75, "test/accuracy": 0.75, "ortho/loss": 2.0})
    assert main([str(one), str(other)]) == 1
    shown = capsys.readouterr().out
    (line,) = (line for line in shown.splitlines() if "test/accuracy" in line)
    assert line.split() == ["test/accuracy", "0.5", "0.75", "+0.2500"]
    assert "val/accuracy" not in shown, "it is equal"
    (line,) = (line for line in shown.splitlines() if "ortho/loss" in line)
    assert line.split() == ["ortho/loss", "-", "2"]


def test_a_changed_source_of_a_class_that_both_have_matters(tmp_path):
    one = record(tmp_path / "a", sources={"cnnlab.x.X": "aaa", "cnnlab.y.Y": "bbb"})
    other = record(tmp_path / "b", sources={"cnnlab.x.X": "ccc", "cnnlab.z.Z": "ddd"})
    assert sections(one, other)["source of"] == {"cnnlab.x.X": ("aaa", "ccc")}
    assert main([str(one), str(other)]) == 1


@pytest.mark.parametrize(
    "known",
    [{"status": "failed", "error": "Boom: [red]x[/red]\nsecond line"}, {"best_epoch": 3}, {"params": 1}],
)
def test_how_it_went_matters(tmp_path, known):
    one, other = record(tmp_path / "a"), record(tmp_path / "b", **known)
    assert main([str(one), str(other)]) == 1
    assert set(sections(one, other)["result"]) == set(known)


def test_nan_and_inf_are_equal_to_themselves(tmp_path):
    metrics = {"val/loss": float("nan"), "test/loss": float("inf")}
    one, other = (record(tmp_path / name, metrics=metrics) for name in "ab")
    assert "result" not in sections(one, other)


def test_ids_do_as_well_as_folders(tmp_path, capsys):
    ids = [record(tmp_path, f"seed={seed}").name[-10:] for seed in (0, 1)]
    assert main([*ids, "--output-dir", str(tmp_path)]) == 1
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.split()[:1] == ["seed"])
    assert line.split() == ["seed", "0", "1", "+1"]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_it_takes_two_runs(tmp_path, count):
    with pytest.raises(RequestError, match=f"^diff: takes two RUNs, got {count}$"):
        main([str(record(tmp_path))] * count if count else [])


def test_the_table_fits_80_columns_without_torch(tmp_path):
    one = record(tmp_path / "a", "dataset=hub", "dataset.path=/a/long/path/" + "x" * 90)
    other = record(tmp_path / "b")
    code = (
        "import sys; from cnnlab.verbs.diff import main; code = main(sys.argv[1:]);"
        "sys.exit(9 if 'torch' in sys.modules else code)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(one), str(other)], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert max(map(len, done.stdout.splitlines()[2:])) <= 80


def test_help_is_no_request(capsys):
    assert main(["--help"]) == 0
    assert "RUN" in capsys.readouterr().out
