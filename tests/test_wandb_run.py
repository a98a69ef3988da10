"""A whole run online, read back from a stand-in of the W&B server and held against result.json."""

import json
import math

import pytest

from cnnlab.__main__ import command
from cnnlab.compose import Composer
from cnnlab.history import History
from cnnlab.result import Result
from tests import isolated
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
def server(monkeypatch):
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
    assert {key: run.summary[key] for key in result.metrics} == result.metrics
    table = next(json.loads(content) for path, content in run.files.items() if path.endswith(".table.json"))
    assert dict(table["data"]) == result.metrics
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
    assert server.runs[Composer().one(lines).id].exit_code == 1


def test_a_sweep_sends_each_job_as_a_run_of_its_own(server, tmp_path):
    lines = [*LINE, f"output_dir={tmp_path}", "epochs=1"]
    lines.remove("epochs=2")
    assert isolated.run(command, ["-m", *lines, "seed=0,1"]) == 0
    runs = [server.runs[config.id] for config in Composer().sweep([*lines, "seed=0,1"])]
    assert {run.config["seed"] for run in runs} == {0, 1}
    assert all(run.exit_code == 0 and not math.isnan(run.summary["test/accuracy"]) for run in runs)
