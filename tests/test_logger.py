import csv
import io
import json
import logging
import math
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import wandb
from PIL import Image
from pytorch_lightning import Trainer
from pytorch_lightning.demos.boring_classes import BoringModel
from pytorch_lightning.utilities import rank_zero_only

from cnnlab.registry import create
from tests.wandb_server import KEY, WandbServer

CONFIG = {"seed": 0, "ortho_weight": math.inf, "conv": {"_target_": "x", "rho": 1.5}, "tags": [1, None]}
RESULT = {"val/accuracy": 0.75, "train/loss": math.inf, "status": "done", "best_epoch": 2, "macs": None}
IMAGE = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)


@pytest.fixture(autouse=True)
def _no_wandb_of_mine(monkeypatch, tmp_path):
    """No key, no settings and no address of whoever runs the tests, and no client process left behind."""
    wandb.teardown()
    for name in [*filter(lambda name: name.startswith("WANDB_"), os.environ), "NETRC"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody listens there
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    yield
    wandb.teardown()
    assert not clients()


@pytest.fixture
def server(monkeypatch):
    with WandbServer() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        yield server


@pytest.fixture
def warnings(caplog):
    caplog.set_level(logging.WARNING, "cnnlab")
    return lambda: [record.message for record in caplog.records if record.name == "cnnlab"]


def clients():
    """Process ids of W&B's own process, which uploads."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [int(pid) for pid in children if b"wandb-core" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def logger(folder, word="wandb", **changes):
    about = {"run_id": "0123456789", "name": "sweep", "summary": "conv=x", "tags": ["conv=x"]}
    return create("logger", word, **{"folder": folder, "config": CONFIG, "history": [], **about, **changes})


def rows(steps):
    return [{"step": step, "epoch": step // 3, "train/loss": step / 4} for step in steps]


def train(logger, steps):
    for row in rows(steps):
        logger.log_metrics({key: value for key, value in row.items() if key != "step"}, step=row["step"])


def received(run):
    """The rows of a run on the server, in the form of `rows`."""
    return [
        {"step": row["_step"], "epoch": row["epoch"], "train/loss": row["train/loss"]} for row in run.history
    ]


def sync(folder):
    """What the server has after the user has uploaded the only record in a run's folder."""
    (record,) = Path(folder, "wandb").glob("*run-*")
    with WandbServer() as server:
        environment = {**os.environ, "WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY}
        command = [sys.executable, "-m", "wandb", "sync", "--no-skip-online", str(record)]
        subprocess.run(command, env=environment, cwd=folder, check=True, capture_output=True, timeout=60)
        (run,) = server.runs.values()
    return run


# Online


def test_the_server_gets_everything_that_was_logged(server, tmp_path, warnings):
    mirror = logger(tmp_path, project="zoo", tags=["conv=x", "a" * 100, "a" * 70])
    train(mirror, range(5))
    mirror.log_metrics({"val/accuracy": 0.5}, step=4)
    mirror.conclude(RESULT, 3, {"filters": IMAGE})

    assert list(server.runs) == ["0123456789"]
    run = server.runs["0123456789"]
    assert run.identity["project"] == "zoo"
    assert run.identity["groupName"] == "sweep"
    assert run.identity["displayName"] == "conv=x"
    assert run.identity["jobType"] == "train"
    assert run.identity["tags"] == ["conv=x", "a" * 64]
    assert {key: value for key, value in run.config.items() if key != "_wandb"} == CONFIG
    assert received(run) == rows(range(5))
    assert [row.get("val/accuracy") for row in run.history] == [None] * 4 + [0.5]
    summary = {key: run.summary.get(key) for key in RESULT}
    assert summary == RESULT
    assert run.exit_code == 3
    table = json.loads(run.files[run.summary["result"]["path"]])
    assert table["columns"] == ["metric", "value"]
    assert [tuple(row) for row in table["data"]] == list(RESULT.items())
    picture = Image.open(io.BytesIO(run.files[run.summary["filters"]["path"]]))
    assert (np.asarray(picture) == IMAGE).all()
    assert warnings() == []


def test_a_resumed_run_has_no_row_twice_and_lacks_none(server, tmp_path):
    first = logger(tmp_path)
    train(first, range(5))
    first.conclude({}, 130, {})
    second = logger(tmp_path, history=rows(range(3)))  # the last checkpoint was at step 2
    train(second, range(3, 8))
    second.conclude({}, 1, {})
    third = logger(tmp_path, history=rows(range(10)))  # two steps were recorded while W&B was off
    train(third, range(10, 12))
    third.conclude(RESULT, 0, {})
    run = server.runs["0123456789"]
    assert received(run) == rows(range(12))
    assert run.summary["val/accuracy"] == 0.75
    assert run.exit_code == 0


def test_two_runs_of_a_process_are_apart_even_when_both_are_open(server, tmp_path):
    first = logger(tmp_path / "1", run_id="1")
    train(first, range(2))
    second = logger(tmp_path / "2", run_id="2")
    train(second, range(7, 9))
    train(first, range(2, 4))
    first.conclude(RESULT, 0, {})
    train(second, range(9, 10))
    second.conclude({}, 1, {})
    assert received(server.runs["1"]) == rows(range(4))
    assert received(server.runs["2"]) == rows(range(7, 10))
    assert (server.runs["1"].exit_code, server.runs["2"].exit_code) == (0, 1)


def test_a_key_in_netrc_is_found(server, tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY")
    netrc = tmp_path / "home" / ".netrc"
    netrc.write_text(f"machine {server.url.removeprefix('http://')}\n login user\n password {KEY}\n")
    netrc.chmod(0o600)
    logger(tmp_path).conclude({}, 0, {})
    assert server.runs["0123456789"].exit_code == 0


# Offline


def test_without_a_key_a_run_is_recorded_offline_in_its_folder_alone(tmp_path, warnings, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path / "home")
    before = dict(os.environ)
    start = time.monotonic()
    mirror = logger(tmp_path / "run")
    train(mirror, range(3))
    mirror.conclude(RESULT, 0, {"filters": IMAGE})
    assert time.monotonic() - start < 5
    wandb.teardown()
    assert dict(os.environ) == before
    assert list((tmp_path / "home").rglob("*")) == []
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["wandb"]
    assert capfd.readouterr() == ("", "")
    assert warnings() == []
    run = sync(tmp_path / "run")
    assert received(run) == rows(range(3))
    assert run.identity["tags"] == ["conv=x"]
    assert run.summary["val/accuracy"] == 0.75


def test_a_run_resumed_offline_is_one_record_with_all_rows(tmp_path):
    first = logger(tmp_path)
    train(first, range(5))
    wandb.teardown()  # as if killed: never concluded
    second = logger(tmp_path, history=rows(range(3)))
    train(second, range(3, 6))
    second.conclude(RESULT, 0, {})
    assert received(sync(tmp_path)) == rows(range(6))


@pytest.mark.parametrize(("environment", "mode"), [("offline", "auto"), ("online", "offline")])
def test_a_run_is_offline_on_request_though_there_is_a_key(server, tmp_path, monkeypatch, environment, mode):
    monkeypatch.setenv("WANDB_MODE", environment)
    logger(tmp_path, mode=mode).conclude({}, 0, {})
    assert server.runs == {}
    assert list((tmp_path / "wandb").glob("offline-run-*"))


def test_a_run_left_open_does_not_keep_the_next_from_its_id(tmp_path, capfd, warnings):
    train(logger(tmp_path / "1"), range(2))
    second = logger(tmp_path / "2")
    train(second, range(3))
    second.conclude(RESULT, 0, {})
    assert received(sync(tmp_path / "2")) == rows(range(3))
    assert capfd.readouterr() == ("", "")
    assert "0123456789 is in use" in warnings()[0]


def test_wandb_can_be_disabled_by_its_environment_variable(server, tmp_path, monkeypatch, warnings):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    mirror = logger(tmp_path, history=rows(range(2)))
    train(mirror, range(2, 4))
    mirror.conclude(RESULT, 0, {"filters": IMAGE})
    assert server.runs == {}
    assert warnings() == []


# Trouble


@pytest.mark.parametrize("answer", ["refuses", "hangs"])
def test_a_server_that_does_not_answer_costs_seconds_and_one_warning(
    tmp_path, monkeypatch, warnings, capfd, answer
):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if answer == "hangs":
            listener.listen()
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{listener.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        start = time.monotonic()
        mirror = logger(tmp_path, init_timeout=1.0)
        train(mirror, range(3))
        mirror.conclude(RESULT, 0, {"filters": IMAGE})
        assert time.monotonic() - start < 8
    assert capfd.readouterr() == ("", "")
    assert [line[:42] for line in warnings()] == ["W&B did not start, recording offline (Comm"]
    assert "\n" not in warnings()[0]
    assert received(sync(tmp_path)) == rows(range(3))


@pytest.mark.parametrize("key", ["", "short"])
def test_online_without_a_usable_key_goes_offline_with_a_warning(tmp_path, monkeypatch, warnings, key):
    monkeypatch.setenv("WANDB_API_KEY", key)
    logger(tmp_path, mode="online").conclude({}, 0, {})
    (line,) = warnings()
    assert "API key" in line
    assert list((tmp_path / "wandb").glob("offline-run-*"))


def test_a_run_goes_on_when_the_server_dies_and_keeps_its_record(tmp_path, monkeypatch, warnings, capfd):
    with WandbServer() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        mirror = logger(tmp_path, init_timeout=1.0, finish_timeout=1.0)
        train(mirror, range(2))
    start = time.monotonic()
    train(mirror, range(2, 5))
    assert time.monotonic() - start < 1
    mirror.conclude(RESULT, 0, {"filters": IMAGE})
    assert time.monotonic() - start < 8
    assert capfd.readouterr() == ("", "")
    assert [line[:14] for line in warnings()] == ["W&B failed, it"]
    assert received(sync(tmp_path)) == rows(range(5))


KILLED = """
import os, signal, sys, time, test_logger
mirror = test_logger.logger(sys.argv[1])
test_logger.train(mirror, range(2))
for pid in test_logger.clients():
    os.kill(pid, signal.SIGKILL)
time.sleep(0.2)
test_logger.train(mirror, range(2, 50))
mirror.conclude(test_logger.RESULT, 0, {"filters": test_logger.IMAGE})
print("the run went on")
"""


def test_a_run_goes_on_when_the_client_process_is_killed(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    ended = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (0, "the run went on\n")
    (line,) = ended.stderr.splitlines()
    assert line.startswith("W&B failed, its record of this run is incomplete (")


def test_a_folder_that_cannot_be_written_costs_the_mirror_and_one_warning(tmp_path, warnings):
    (tmp_path / "file").touch()
    mirror = logger(tmp_path / "file")
    train(mirror, range(2))
    mirror.conclude(RESULT, 0, {})
    assert [line[:28] for line in warnings()] == ["W&B could not be started, th"]


def test_what_wandb_cannot_take_costs_one_warning_and_nothing_else(tmp_path, warnings):
    mirror = logger(tmp_path)
    train(mirror, range(2))
    mirror.log_metrics({"train/loss": {1, 2}, 3: object()}, step=2)
    mirror.log_metrics({"train/loss": {1, 2}, 3: object()}, step=3)
    train(mirror, range(4, 5))
    mirror.conclude({"val/accuracy": 0.5}, 2, {"filters": IMAGE.astype(str)})
    assert len(warnings()) == 1
    run = sync(tmp_path)
    assert received(run) == rows([0, 1, 4])
    assert (run.summary["val/accuracy"], run.exit_code) == (0.5, 2)


def test_only_the_first_process_of_a_distributed_run_talks_to_wandb(tmp_path, monkeypatch):
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    mirror = logger(tmp_path)
    train(mirror, range(2))
    mirror.conclude(RESULT, 0, {})
    assert mirror.experiment is None
    assert not (tmp_path / "wandb").exists()


@pytest.mark.parametrize(
    ("knob", "value", "message"),
    [
        ("project", "a/b", r"project must be 1 to 128 characters without / \ # ? % :, got 'a/b'"),
        ("project", "", r"project must be 1 to 128 characters without / \ # ? % :, got ''"),
        ("mode", "onlin", "mode must be one of auto, online, offline; got 'onlin', did you mean 'online'?"),
        ("init_timeout", 0, "init_timeout must be a number > 0, got 0"),
        ("finish_timeout", -1, "finish_timeout must be a number > 0, got -1"),
    ],
)
def test_a_knob_out_of_range_is_refused_before_anything_is_written(tmp_path, knob, value, message):
    with pytest.raises(ValueError) as refusal:  # noqa: PT011
        logger(tmp_path / "run", **{knob: value})
    assert str(refusal.value) == message
    assert not (tmp_path / "run").exists()


# The others


def test_csv_holds_every_row_once_after_a_resume(tmp_path):
    first = logger(tmp_path, "csv")
    train(first, range(5))
    first.conclude({}, 130, {})
    second = logger(tmp_path, "csv", history=rows(range(3)))
    train(second, range(3, 6))
    second.log_metrics({"val/accuracy": 0.5}, step=6)
    second.conclude(RESULT, 0, {"filters": IMAGE})
    with (tmp_path / "csv" / "metrics.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [{key: float(value) for key, value in row.items() if value} for row in table] == [
        *rows(range(6)),
        {"step": 6, "val/accuracy": 0.5},
    ]


def test_none_is_no_logger(tmp_path):
    assert logger(tmp_path, "none") is None
    assert list(tmp_path.iterdir()) == [tmp_path / "home"]


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of Lightning's, about torch's pytrees
@pytest.mark.parametrize("word", ["wandb", "csv"])
def test_lightning_can_use_the_logger_by_itself(tmp_path, word):
    class Net(BoringModel):
        def training_step(self, batch, batch_idx):
            self.log("train/loss", 0.5)
            return super().training_step(batch, batch_idx)

    mirror = logger(tmp_path, word)
    trainer = Trainer(
        logger=mirror, max_steps=2, log_every_n_steps=1, limit_val_batches=0, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
    )  # fmt: skip
    trainer.fit(Net())
    mirror.conclude({}, 0, {})
    if word == "wandb":
        assert [row["_step"] for row in sync(tmp_path).history] == [0, 1]
    else:
        assert len((tmp_path / "csv" / "metrics.csv").read_text().splitlines()) == 3
