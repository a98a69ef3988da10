"""A whole run online, read back from a stand-in of the W&B server and held against result.json."""

import math
import signal
from dataclasses import replace

import pytest

from cnnlab.__main__ import command
from cnnlab.compose import Composer
from cnnlab.history import History
from cnnlab.result import Result
from tests import isolated
from tests.mirror import no_wandb_of_mine  # noqa: F401
from tests.test_resume import train as struck
from tests.wandb_server import KEY, WandbServer

LINE = [
    "model.filters=[8]",
    "epochs=2",
    "batch_size=128",
    "conv=decoupled_tanh",
    "ortho_weight=0.1",
    "name=mine",
]


@pytest.fixture
def server(monkeypatch, no_wandb_of_mine):  # noqa: F811
    with WandbServer() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
        yield server


def test_wandb_has_what_result_json_has(server, tmp_path):
    lines = [*LINE, f"output_dir={tmp_path}"]
    assert isolated.run(command, lines) == 0
    config = Composer().one(lines)
    result = Result.read(config.folder)
    assert result is not None
    run = server.runs[result.id]
    assert run.exit_code == 0
    assert run.identity["groupName"] == "mine" and run.identity["displayName"] == config.summary
    assert set(run.identity["tags"]) == {f"{group}={word}" for group, word in result.choices.items()}
    assert {key: run.config[key] for key in config.tree} == config.tree
    assert run.config["choices"] == result.choices
    told = {key: value for key, value in result.summary.items() if value is not None}
    assert {key: run.summary[key] for key in told} == told
    assert told["status"] == "done" and {"params", "macs", "wall_s", "best_epoch", "test/accuracy"} <= {*told}
    assert any("filters" in path and path.endswith(".png") for path in run.files)
    rows = History(config.folder / "history.csv").rows()
    sent = [{key: row[key] for key in row if not key.startswith("_")} for row in run.history]
    for row in rows:
        metrics = {key: value for key, value in row.items() if key != "step"}
        assert any(metrics.items() <= other.items() for other in sent), f"row {row} was not sent"


def test_wandb_is_told_of_a_failure(server, tmp_path):
    lines = [*LINE, f"output_dir={tmp_path}", "conv=standard", "optimizer=sgd", "optimizer.lr=1e30"]
    lines.remove("conv=decoupled_tanh")
    assert isolated.run(command, lines) == 1
    run = server.runs[Composer().one(lines).id]
    assert (run.exit_code, run.preempted, run.summary["status"]) == (1, False, "failed")
    assert run.summary["error"].startswith("the loss is ")


@pytest.mark.parametrize(
    ("signum", "told"),
    [(signal.SIGTERM, (143, True, "interrupted")), (signal.SIGKILL, (None, False, None))],
    ids=["SIGTERM", "SIGKILL"],
)
def test_wandb_is_told_of_a_stop_and_of_the_rest_when_asked_again(server, tmp_path, signum, told):
    lines = [*LINE, f"output_dir={tmp_path}", "threads=1"]
    with pytest.raises(isolated.Ended):
        isolated.run(struck, lines, (14, signum))  # of 22 steps
    run = server.runs[Composer().one(lines).id]
    assert (run.exit_code, run.preempted, run.summary.get("status")) == told
    assert isolated.run(command, lines) == 0
    assert (run.exit_code, run.summary["status"], run.summary["epochs_done"]) == (0, "done", 2)
    rows = History(Composer().one(lines).folder / "history.csv").rows()
    assert [row["val/accuracy"] for row in run.history if "val/accuracy" in row] == [
        row["val/accuracy"] for row in rows if "val/accuracy" in row
    ]


def pruned(lines):
    from cnnlab.train import train

    prune = {"metric": "val/accuracy", "maximize": True, "bars": [1.1]}
    config = Composer().one(lines)
    return train(replace(config, tree=config.tree | {"sweep": {"prune": prune}}))


def test_wandb_is_told_that_a_run_was_pruned(server, tmp_path):
    result = isolated.run(pruned, [*LINE, f"output_dir={tmp_path}"])
    run = server.runs[result.id]
    assert (run.exit_code, run.summary["status"], run.summary["epochs_done"]) == (0, "pruned", 1)
    assert run.summary["error"].startswith("after epoch 1: val/accuracy 0.")


def test_a_sweep_sends_each_job_as_a_run_of_its_own(server, tmp_path):
    lines = [*LINE, f"output_dir={tmp_path}", "epochs=1"]
    lines.remove("epochs=2")
    assert isolated.run(command, ["-m", *lines, "seed=0,1"]) == 0
    runs = [server.runs[config.id] for config in Composer().sweep([*lines, "seed=0,1"])]
    assert {run.config["seed"] for run in runs} == {0, 1}
    assert all(run.exit_code == 0 and not math.isnan(run.summary["test/accuracy"]) for run in runs)
