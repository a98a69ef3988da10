"""`cnnlab check` on the command line: its table, its exit codes, its mistakes."""

import pkgutil
import subprocess
import sys

import pytest

import cnnlab.check
from cnnlab.allowed import RequestError
from cnnlab.check.command import available, main
from cnnlab.check.finding import Finding

SMALL = ["threads=1", "model.filters=[4]", "model.convs=1"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_healthy_configuration_gives_0_and_leaves_nothing(elsewhere, capsys):
    assert main([*SMALL, "--only", "leak", "--only", "inputs"]) == 0
    shown = capsys.readouterr().out
    assert [line.split()[:2] for line in shown.splitlines()[1:-1] if line[1] != " "] == [
        ["leak", "pass"],
        ["inputs", "pass"],
    ]
    assert shown.splitlines()[-1] == "2 pass"
    assert list(elsewhere.iterdir()) == []


def test_a_failure_gives_1_and_fits_80_columns(capsys):
    assert main([*SMALL, "--only", "inputs", "preprocessing=none"]) == 1
    shown = capsys.readouterr().out
    assert "inputs" in shown and "fail" in shown and max(map(len, shown.splitlines())) <= 80


def test_a_check_that_breaks_off_has_found_a_fault(monkeypatch, capsys):
    monkeypatch.setattr("cnnlab.check.leak.digests", lambda images: images.no_such_thing)
    assert main([*SMALL, "--only", "leak"]) == 1
    assert "AttributeError" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--only gradients", "did you mean 'gradient'"),
        ("--only", "check: "),
        ("-m seed=0", "check: "),
        ("seed=0,1", "several values"),
        ("conv=decoupled_tan", "'decoupled_tanh'"),
        ("conv=decoupled_tanh conv.rho=-1", "conv=decoupled_tanh conv.rho=-1: must be a number > 0"),
        ("model.filters=[0]", "model=convnet model.filters=[0]: "),
        ("dataset=fashion_mnist dataset.root=/nope", "/nope"),
        ("loss=hinge dataset.targets=attributes", "loss=hinge"),
        ("--config-dir /nope", "no such folder"),
    ],
)
def test_a_wrong_request_is_one_line(line, words):
    with pytest.raises(RequestError) as refused:
        main(line.split())
    assert words in str(refused.value) and "\n" not in str(refused.value)


def test_every_check_says_in_help_what_it_checks(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    for name, what in available().items():
        assert f"  {name} " in shown and what, name
    modules = {module.name for module in pkgutil.iter_modules(cnnlab.check.__path__)}
    assert modules - set(available()) == {"command", "finding", "subject", "watch"}


def test_help_and_mistakes_need_no_torch():
    code = (
        "import sys; from cnnlab.check.command import main; main(['--help']);"
        "sys.exit(bool({'torch', 'pytorch_lightning', 'wandb'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_the_same_configuration_gives_the_same_figures(capsys):
    shown = []
    for _ in range(2):
        main([*SMALL, "--only", "gradient", "--only", "zero_grad", "--only", "units"])
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1] and "3 pass" in shown[0]


def test_a_finding_is_not_changed_once_it_is_found():
    with pytest.raises(AttributeError):
        Finding("pass", "", "").verdict = "fail"
