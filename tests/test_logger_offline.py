"""W&B offline or in trouble: the record in the folder is whole, or one warning says what is lost."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import wandb
import wandb.apis.public  # as in the jobs of a sweep: it reads its timeout when it is imported

from tests.mirror import (
    IMAGE,
    RESULT,
    killed,
    logged_warnings,  # noqa: F401
    logger,
    no_wandb_of_mine,  # noqa: F401
    received,
    rows,
    sync,
    train,
    wandb_server,  # noqa: F401
)
from tests.wandb_server import KEY, WandbServer

# Offline


def test_without_a_key_a_run_is_recorded_offline_in_its_folder_alone(tmp_path, warnings, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path / "home")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{listener.getsockname()[1]}")
        before = dict(os.environ)
        mirror = logger(tmp_path / "run")
        train(mirror, range(3))
        mirror.conclude(RESULT, 0, {"filters": IMAGE})
        wandb.teardown()
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):  # nobody has knocked
            listener.accept()
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


def test_a_killed_run_leaves_a_record_that_tells_of_its_end(tmp_path):
    killed(tmp_path, steps=5)
    run = sync(tmp_path)
    assert received(run) == rows(range(4)), "the last row was still open"
    assert run.exit_code == 1


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

LONG_S = 45  # on a busy machine; W&B itself would wait 90 s for an answer, and longer to upload


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
        assert time.monotonic() - start < LONG_S
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
        mirror = logger(tmp_path, finish_timeout=1.0)
        train(mirror, range(2))
    start = time.monotonic()
    train(mirror, range(2, 5))
    mirror.conclude(RESULT, 0, {"filters": IMAGE})
    assert time.monotonic() - start < LONG_S
    assert capfd.readouterr() == ("", "")
    assert [line[:14] for line in warnings()] == ["W&B failed, it"]
    assert received(sync(tmp_path)) == rows(range(5))


KILLED = """
import os, signal, sys
from tests import mirror as given
mirror = given.logger(sys.argv[1])
given.train(mirror, range(2))
(client,) = given.clients()
os.kill(client, signal.SIGKILL)
assert given.wait_for(lambda: not given.alive(client))
given.train(mirror, range(2, 50))
mirror.conclude(given.RESULT, 0, {"filters": given.IMAGE})
print("the run went on")
"""


def test_a_run_goes_on_when_the_client_process_is_killed(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
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
    assert [line[:28] for line in warnings()] == ["W&B could not be started, so"]


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
