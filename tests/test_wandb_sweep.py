"""A W&B sweep's agent drives cnnlab by conf/wandb_sweep.yaml; a sweep recorded offline is synced at once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from cnnlab.compose import Composer
from cnnlab.registry import CONF
from cnnlab.verbs.listing import groups
from tests.mirror import (
    IMAGE,
    RESULT,
    ask,
    killed,
    logger,
    no_wandb_of_mine,  # noqa: F401
    received,
    rows,
    train,
    wandb_server,  # noqa: F401
)
from tests.wandb_server import KEY, WandbServer

SWEEP = yaml.safe_load((CONF / "wandb_sweep.yaml").read_text())
ROOT = str(Path(__file__).parent.parent)


def asked(parameters):
    """The command line that the agent makes of the values it is given."""
    command = create_sweep_command(list(SWEEP["command"]))
    arguments = create_sweep_command_args({"args": {key: {"value": v} for key, v in parameters.items()}})
    assert command.count("${args_no_hyphens}") == 1 == command.index("${args_no_hyphens}") - 1
    return [*command[:-1], *arguments["args_no_hyphens"]]


def values(parameter):
    return parameter["values"] if "values" in parameter else [parameter["min"], parameter["max"]]


@pytest.mark.parametrize("key", SWEEP["parameters"])
def test_every_value_that_the_sweep_may_draw_is_one_of_cnnlab(key):
    for value in values(SWEEP["parameters"][key]):
        program, *lines = asked({key: value})
        assert program == "cnnlab"
        config = Composer().one(lines)
        known = {**config.tree, **config.choices, "optimizer.lr": config.tree["optimizer"]["lr"]}
        assert known[key] == value


def test_the_sweeps_file_is_neither_a_group_nor_a_word():
    assert not {name for name in Composer().words if "sweep" in name and name != "sweep"}
    found = groups([CONF])
    assert not {word for words in found.values() for word in words if word == "wandb_sweep"}
    assert Composer().one([]).tree.keys().isdisjoint({"program", "command", "method", "parameters"})


def test_an_agents_run_reports_to_its_sweep(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SWEEP_ID", "a1b2c3d4")
    drawn = {key: values(parameter)[-1] for key, parameter in SWEEP["parameters"].items()}
    (tmp_path / "drawn.yaml").write_text(
        "wandb_version: 1\n" + "".join(f"{key}:\n  value: {value}\n" for key, value in drawn.items())
    )
    _, *lines = asked(drawn)
    quick = ["epochs=1", "batch_size=512", "model.filters=[4]", "threads=1"]
    with WandbServer() as server:
        agent = {
            "WANDB_RUN_ID": "agents-own",
            "WANDB_SWEEP_PARAM_PATH": str(tmp_path / "drawn.yaml"),
            "WANDB_BASE_URL": server.url,
            "WANDB_API_KEY": KEY,
            "PYTHONPATH": ROOT,
        }
        done = subprocess.run(
            [sys.executable, "-m", "cnnlab", *lines, *quick],
            env={**os.environ, **agent},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert (done.returncode, done.stderr) == (0, "")
        run = server.runs["agents-own"]
    assert list(server.runs) == ["agents-own"] and run.identity["sweep"] == "a1b2c3d4"
    assert SWEEP["metric"]["name"] in run.summary and run.exit_code == 0
    assert drawn.items() <= run.config.items()
    assert run.config["choices"]["conv"] == drawn["conv"]
    (folder,) = (tmp_path / "outputs").iterdir()
    assert folder.name == "a1b2c3d4"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # W&B leaves the file open
def test_what_an_agent_stops_is_not_sent_out_again(tmp_path, monkeypatch, server):
    (tmp_path / "drawn.yaml").write_text("wandb_version: 1\n")
    monkeypatch.setenv("WANDB_SWEEP_ID", "a1b2c3d4")
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", str(tmp_path / "drawn.yaml"))
    mirror = logger(tmp_path)
    train(mirror, range(2))
    mirror.conclude(RESULT, 143, {})
    (run,) = server.runs.values()
    assert run.identity["sweep"] == "a1b2c3d4"
    assert (run.exit_code, run.preempted) == (143, False)


def test_a_sweep_recorded_offline_is_synced_by_one_command(tmp_path):
    sweep = tmp_path / "outputs" / "default"
    for number in range(2):
        mirror = logger(sweep / f"conv=x,seed={number}-012345678{number}", run_id=f"012345678{number}")
        train(mirror, range(2 + number))
        mirror.conclude(RESULT, number, {"filters": IMAGE})
    killed(sweep / "conv=x,seed=2-0123456782", steps=5, run_id="0123456782")
    line = "wandb sync $PWD/outputs/default/*/wandb"
    with WandbServer() as server:
        ask(server, line, tmp_path)
        assert {name: received(run) for name, run in server.runs.items()} == {
            "0123456780": rows(range(2)),
            "0123456781": rows(range(3)),
            "0123456782": rows(range(4)),
        }
        runs = [server.runs[f"012345678{number}"] for number in range(3)]
        assert [run.exit_code for run in runs] == [0, 1, 1]
        assert all(run.summary["filters"]["path"] in run.files for run in runs[:2])
        assert "No runs to sync" in ask(server, line, tmp_path), "what is synced is not synced again"
