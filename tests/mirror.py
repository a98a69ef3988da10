"""What the tests of the loggers share: a logger, rows to log, and what W&B has received of them."""

import logging
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning  # noqa: F401, sets environment variables: before a test looks at them
import wandb

from cnnlab.registry import create
from tests import isolated
from tests.processes import alive, children, command_line, wait_for
from tests.wandb_server import KEY, WandbServer

CONFIG = {"seed": 0, "ortho_weight": math.inf, "conv": {"_target_": "x", "rho": 1.5}, "tags": [1, None]}
RESULT = {"val/accuracy": 0.75, "train/loss": math.inf, "status": "done", "best_epoch": 2, "macs": None}
IMAGE = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)


@pytest.fixture(autouse=True)
def no_wandb_of_mine(monkeypatch, tmp_path):
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


@pytest.fixture(name="server")
def wandb_server(monkeypatch):
    with WandbServer() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        yield server


@pytest.fixture(name="warnings")
def logged_warnings(caplog):
    caplog.set_level(logging.WARNING, "cnnlab")
    return lambda: [record.message for record in caplog.records if record.name == "cnnlab"]


def clients():
    """Process ids of W&B's own process, which uploads."""
    return [pid for pid in children(os.getpid()) if "wandb-core" in command_line(pid)]


def logger(folder, word="wandb", **changes):
    about = {"run_id": "0123456789", "name": "sweep", "summary": "conv=x", "tags": ["conv=x"]}
    about |= {"init_timeout": 30.0} if word == "wandb" else {}  # of a server that is there, on a busy machine
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
        ask(server, f"wandb sync --include-online {record}", folder)
        (run,) = server.runs.values()
    return run


def ask(server, line, folder):
    """What a line in a user's shell says on stderr."""
    environment = {key: value for key, value in os.environ.items() if key != "WANDB_MODE"}
    environment |= {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    asked = {"shell": True, "env": environment, "cwd": folder, "capture_output": True, "text": True}
    return subprocess.run(line, check=True, timeout=60, **asked).stderr


def killed(folder, steps, run_id="0123456789"):
    """A logger whose process was killed by SIGKILL; its client process has ended too."""
    folder.mkdir(parents=True, exist_ok=True)
    with pytest.raises(isolated.Ended):
        isolated.run(_killed, folder, steps, run_id)
    client = int((folder / "client").read_text())
    assert wait_for(lambda: not alive(client)), "it looks for its parent every other second"


def _killed(folder, steps, run_id):
    os.environ.pop("WANDB_SERVICE", None)  # of the process that runs the tests
    train(logger(folder, run_id=run_id), range(steps))
    # A key and its JSON as the protobuf has them. The last row is still open, and not on its way yet.
    last = b"_step\x82\x01%c%d" % (len(str(steps - 2)), steps - 2)
    (record,) = folder.rglob("*.wandb")
    assert wait_for(lambda: last in record.read_bytes())
    (client,) = clients()
    (folder / "client").write_text(str(client))
    os.kill(os.getpid(), signal.SIGKILL)
