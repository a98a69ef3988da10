"""repro: its command gives the run's id again, here or at the run's commit, and says which."""

import shlex
import subprocess
import sys
from dataclasses import replace

import pytest

from cnnlab.allowed import RequestError
from cnnlab.compose import Composer
from cnnlab.registry import CONF
from cnnlab.verbs.repro import main
from tests.recording import KNOWN, record


def printed(capsys, folder, *flags, code=0):
    """The lines that are no comments, each split, and the comments."""
    capsys.readouterr()
    assert main([str(folder), *flags]) == code
    lines = capsys.readouterr().out.splitlines()
    return [shlex.split(line) for line in lines if line[0] != "#"], [line for line in lines if line[0] == "#"]


def command(capsys, folder, *flags, code=0):
    return printed(capsys, folder, *flags, code=code)[0][-1]


ASKED = [
    ["conv=decoupled_tanh", "conv.rho=2", "ortho_weight=0.1", "model.filters=[8,16]"],
    ["experiment=singla", "optimizer.lr=1e-2"],
    ["ortho_weight=inf"],
    ["dataset=hub", 'dataset.path="/with space/it\'s"', "logger.project='a b'"],
    ["trainer.max_steps=3", "optimizer.betas=[0.8,0.9]", "match=params", "conv=grouped"],
    ["+seed=3", "name='$HOME; `id`'", "optimizer.weight_decay=${optimizer.lr}"],
]


@pytest.mark.parametrize("lines", ASKED, ids=" ".join)
def test_the_command_gives_the_id_again(tmp_path, capsys, lines):
    folder = record(tmp_path, *lines)
    program, *overrides = command(capsys, folder)
    assert program == "cnnlab"
    again = Composer().one(overrides)
    assert again.id == folder.name[-10:] and again.folder == folder
    assert overrides[-1] == "threads=1", "they change bits"


@pytest.mark.parametrize("lines", ASKED, ids=" ".join)
def test_values_are_spelled_out_where_the_runs_own_words_mean_something_else_now(tmp_path, capsys, lines):
    folder = record(tmp_path, *lines, overrides=["epochs=7"])
    commands, comments = printed(capsys, folder)
    assert Composer().one(commands[-1][1:]).id == folder.name[-10:]
    assert any("another configuration: " in comment and " -> 7" in comment for comment in comments)


def test_a_default_that_has_changed_since_is_spelled_out(tmp_path, capsys):
    today = Composer().one(["conv=decoupled_tanh", f"output_dir={tmp_path}"])
    tree = {**today.tree, "conv": {**today.tree["conv"], "rho": 7.5}}  # what rho was by default then
    folder = record(tmp_path, config=replace(today, tree=tree))
    commands, comments = printed(capsys, folder)
    assert "conv.rho=7.5" in commands[-1] and "optimizer.lr=0.001" not in commands[-1]
    assert Composer().one(commands[-1][1:]).id == folder.name[-10:]
    assert any("conv.rho 7.5 -> 1.0" in comment for comment in comments)


def test_an_id_that_is_computed_otherwise_now_is_told(tmp_path, capsys):
    folder = record(tmp_path, "epochs=3")
    assert not any("calls that" in comment for comment in printed(capsys, folder)[1])
    (folder / "result.json").write_text(
        (folder / "result.json").read_text().replace(folder.name[-10:], "old")
    )
    commands, comments = printed(capsys, folder)
    assert commands[-1][:2] == ["cnnlab", "epochs=3"]
    assert any(f"calls that configuration {folder.name[-10:]}" in comment for comment in comments)


def test_a_knob_that_came_later_leaves_only_the_commit(tmp_path, capsys):
    today = Composer().one(["conv=decoupled_tanh", f"output_dir={tmp_path}"])
    conv = {knob: value for knob, value in today.tree["conv"].items() if knob != "rho"}
    folder = record(tmp_path, config=replace(today, tree={**today.tree, "conv": conv}))
    commands, comments = printed(capsys, folder, code=1)
    assert commands[-1] == ["cnnlab", "conv=decoupled_tanh", f"output_dir={tmp_path}", "threads=1"]
    assert any(
        "check the commit out first" in comment and "conv.rho - -> 1.0" in comment for comment in comments
    )


def test_a_word_that_is_gone_leaves_only_the_commit(tmp_path, capsys):
    today = Composer().one([f"output_dir={tmp_path}"])
    gone = replace(today, choices={**today.choices, "conv": "gone"}, overrides=["conv=gone"])
    gone.tree["conv"] = {"_target_": "cnnlab.conv.gone.Gone", "depth": 3}
    assert command(capsys, record(tmp_path, config=gone), code=1) == ["cnnlab", "conv=gone", "threads=1"]


def test_a_users_own_word_needs_its_folder(tmp_path, capsys, monkeypatch):
    (tmp_path / "theirs.py").write_text("import torch\nclass Mine(torch.nn.Conv2d):\n    'Mine.'\n")
    (tmp_path / "yaml" / "conv").mkdir(parents=True)
    (tmp_path / "yaml" / "conv" / "mine.yaml").write_text("_target_: theirs.Mine\n")
    monkeypatch.syspath_prepend(tmp_path)
    yaml = str(tmp_path / "yaml")
    config = Composer(yaml).one(["conv=mine", "trusted=[theirs]", f"output_dir={tmp_path}"])
    folder = record(tmp_path, config=config)
    assert command(capsys, folder, "--config-dir", yaml)[1:4] == ["--config-dir", yaml, "conv=mine"]
    spelled = command(capsys, folder)
    assert {"conv._target_=theirs.Mine", "trusted=[theirs]"} <= set(spelled), "without it the class is named"
    assert Composer().one(spelled[1:]).id == config.id


def test_commit_and_packages_are_those_of_the_run(tmp_path, capsys):
    (checkout, pip, _), comments = printed(capsys, record(tmp_path))
    assert checkout == ["git", "checkout", "0123abc"]
    index = ["--extra-index-url", "https://download.pytorch.org/whl/cpu"]
    assert pip == ["pip", "install", *index, "torch==2.13.0+cpu", "numpy==2.4.6"]
    assert "# Python 3.11.7" in comments and not any("changes" in comment for comment in comments)


def test_sources_that_no_commit_has_are_warned_of(tmp_path, capsys):
    (checkout, *_), comments = printed(capsys, record(tmp_path, git="0123abc+"))
    assert checkout == ["git", "checkout", "0123abc"]
    assert any("changes that this commit does not have" in comment for comment in comments)
    (pip, _), comments = printed(capsys, record(tmp_path, "seed=1", git=None))
    assert pip[0] == "pip" and any("commit is not known" in comment for comment in comments)


def test_what_is_printed_is_safe_for_a_shell(tmp_path, capsys):
    evil = "x; touch pwned"
    known = {"git": evil, "versions": {**KNOWN["versions"], "numpy": evil}, "device": "a\ntouch pwned"}
    folder = record(tmp_path, "name='`touch pwned`'", **known)
    assert main([str(folder)]) == 0
    script = f"git() {{ :; }}; pip() {{ :; }}; cnnlab() {{ :; }}\n{capsys.readouterr().out}"
    subprocess.run(["sh", "-c", script], cwd=tmp_path, check=True)
    assert not (tmp_path / "pwned").exists()


def test_launcher_keys_of_a_sweep_do_not_belong_to_a_run(tmp_path, capsys):
    folder = record(tmp_path, overrides=["hydra.launcher.jobs=2", f"output_dir={tmp_path}", "threads=4"])
    assert command(capsys, folder) == ["cnnlab", f"output_dir={tmp_path}", "threads=1"]


@pytest.mark.parametrize("sign", ["", "+", "++"])
def test_the_command_of_a_run_begun_afresh_does_not_begin_it_afresh(tmp_path, capsys, sign):
    asked = [f"{sign}{line}" for line in ("resume=false", "threads=4", "hydra.launcher.jobs=2", "seed=3")]
    for overrides in (asked, [f"{sign}resume=false", "epochs=7"]):  # the latter are spelled out
        folder = record(tmp_path / str(len(overrides)), "seed=3", "resume=false", overrides=overrides)
        line = command(capsys, folder)
        assert {"seed=3", "threads=1"} <= set(line)
        assert not any("resume" in word or word.startswith(("+", "hydra", "threads=4")) for word in line)


def test_torch_is_not_imported(tmp_path):
    code = "import sys; from cnnlab.verbs.repro import main; main(sys.argv[1:]); "
    code += "sys.exit('torch' in sys.modules)"
    folder = str(record(tmp_path))
    assert subprocess.run([sys.executable, "-c", code, folder], capture_output=True).returncode == 0


def test_versions_are_recorded_of_all_that_cnnlab_declares_to_need():
    import tomllib

    from cnnlab.provenance import versions

    declared = tomllib.loads((CONF.parent / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {line.split("<")[0].split(">")[0] for line in declared} | {"python", "cnnlab"} == set(versions())


@pytest.mark.parametrize("count", [0, 2])
def test_it_takes_one_run(tmp_path, count):
    with pytest.raises(RequestError, match=f"^repro: takes one RUN, got {count}$"):
        main([str(record(tmp_path))] * count if count else [])


def test_help_is_no_request(capsys):
    assert main(["--help"]) == 0
    assert "RUN" in capsys.readouterr().out
