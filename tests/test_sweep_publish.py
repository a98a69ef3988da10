"""A sweep's report lies beside its runs and is shown on W&B; where it is not, one line says why."""

import os
import time
from dataclasses import replace

import pytest

from cnnlab.compose import Composer
from cnnlab.sweep import publish as module
from cnnlab.sweep.publish import identity, publish
from tests import isolated
from tests.mirror import ask, no_wandb_of_mine, wandb_server  # noqa: F401
from tests.report_runs import run
from tests.wandb_server import KEY, WandbServer

ID = identity("mine")


@pytest.fixture
def sweep(tmp_path):
    """Three runs that were never trained, and the configurations of their sweep."""
    for seed, accuracy in enumerate((0.90, 0.92, None)):
        run(tmp_path / "outputs" / "mine", accuracy, seed=seed, error=None if accuracy else "Boom: went off")
    return Composer().sweep([f"output_dir={tmp_path}/outputs", "name=mine", "seed=range(3)"])


def folder(sweep):
    return sweep[0].folder.parent


def logged(sweep, **knobs):
    return [replace(c, tree=c.tree | {"logger": c.tree["logger"] | knobs}) for c in sweep]


def shown(server):
    """The page of the report's run, the only one there."""
    ((name, run),) = server.runs.items()
    assert name == ID
    return run.files[run.summary["report/page"]["path"]].decode()


def test_the_page_is_a_run_of_the_sweeps_group_and_an_artifact(server, sweep, capsys):
    publish(sweep)
    page = (folder(sweep) / "report.html").read_text()
    assert "0.9100" in page and "Boom: went off" in page
    assert shown(server) == page
    run = server.runs[ID]
    assert (run.identity["groupName"], run.identity["jobType"], run.exit_code) == ("mine", "report", 0)
    assert {key: run.summary[key] for key in ("report/runs", "report/done", "report/best")} == {
        "report/runs": 3,
        "report/done": 2,
        "report/best": "defaults",
    }
    (artifact,) = server.artifacts
    assert (artifact.name, artifact.type, artifact.committed) == (ID, "report", True)
    assert artifact.files == {"report.html": page.encode()}
    assert capsys.readouterr().out == f"{folder(sweep)}/report.html\n"


def test_asked_again_the_same_run_shows_what_is_new_and_nothing_is_sent_if_nothing_is(server, sweep, capsys):
    publish(sweep)
    capsys.readouterr()
    publish(sweep)
    assert len(server.artifacts) == 1 and capsys.readouterr().out == ""
    run(folder(sweep), 0.97, seed=3)
    publish(sweep)
    assert [artifact.name for artifact in server.artifacts] == [ID, ID]
    assert shown(server) == (folder(sweep) / "report.html").read_text()
    assert server.runs[ID].summary["report/runs"] == 4


def test_offline_the_report_is_recorded_and_synced_with_the_runs_by_one_command(sweep, tmp_path):
    publish(sweep)
    with WandbServer() as server:
        ask(server, "wandb sync $PWD/outputs/mine/*/wandb", tmp_path)
        assert shown(server) == (folder(sweep) / "report.html").read_text()
        assert [artifact.committed for artifact in server.artifacts] == [True]


@pytest.mark.parametrize("word", ["none", "csv"])
def test_runs_that_are_not_on_wandb_are_not_reported(sweep, tmp_path, word):
    before = sorted(tmp_path.rglob("*"))
    publish(Composer().sweep([f"output_dir={tmp_path}/outputs", "name=mine", f"logger={word}", "seed=0,1"]))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_sweep_without_a_run_has_no_report(tmp_path):
    publish(Composer().sweep([f"output_dir={tmp_path}/none", "seed=0,1"]))
    assert not (tmp_path / "none").exists()


def test_where_wandb_is_disabled_the_page_is_written_all_the_same(sweep, capsys, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    publish(sweep)
    assert capsys.readouterr().out == f"{folder(sweep)}/report.html\n"


def test_each_name_of_a_sweep_has_its_report(server, sweep, tmp_path):
    run(tmp_path / "outputs" / "a b", 0.5)
    other = Composer().sweep([f"output_dir={tmp_path}/outputs", "name='a b'", "seed=0,1"])
    publish([*sweep, *other])
    assert {run.identity["groupName"] for run in server.runs.values()} == {"mine", "a b"}
    assert all((tmp_path / "outputs" / name / "report.html").exists() for name in ("mine", "a b"))


def test_a_server_that_does_not_answer_costs_one_line(sweep, capsys, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)  # nobody listens
    publish(logged(sweep, init_timeout=1.0, finish_timeout=60.0))
    page, trouble = capsys.readouterr().out.splitlines()
    assert page == f"{folder(sweep)}/report.html"
    assert trouble.startswith("W&B did not start, recording offline (")


def hang(*told):
    time.sleep(600)


def die(*told):
    os._exit(3)


@pytest.mark.parametrize(
    ("send", "finish_timeout", "line"),
    [(hang, 1.0, "W&B did not take the report within 3 s"), (die, 60.0, "W&B did not take the report")],
)
def test_whatever_becomes_of_wandb_the_sweep_goes_on(sweep, capsys, monkeypatch, send, finish_timeout, line):
    monkeypatch.setattr(module, "_send", send)
    monkeypatch.setattr(module, "START_S", 0.0)
    publish(logged(sweep, init_timeout=1.0, finish_timeout=finish_timeout))
    assert capsys.readouterr().out.splitlines()[1:] == [line]


def test_a_page_that_cannot_be_written_costs_one_line(server, sweep, capsys):
    (folder(sweep) / "report.html").mkdir()
    publish(sweep)
    said = capsys.readouterr().out
    assert said.startswith(f"{folder(sweep)}/report.html was not written (") and said.count("\n") == 1
    assert server.runs == {}


def test_runs_without_accuracies_are_reported_by_their_loss(server, tmp_path):
    path = tmp_path / "outputs" / "mine"
    for conv, loss in (("standard", 0.5), ("fft", 0.4)):
        run(path, conv=conv, status="done", metrics={"val/loss": loss})
    publish(Composer().sweep([f"output_dir={tmp_path}/outputs", "name=mine", "conv=standard,fft"]))
    assert server.runs[ID].summary["report/best"] == "fft"
    assert server.runs[ID].summary["report/metric"] == "val/loss"


def whole(lines):
    from cnnlab.__main__ import command

    return command(["-m", *lines])


def test_a_sweep_ends_in_its_report_though_a_job_has_failed(server, tmp_path):
    quick = ["epochs=1", "batch_size=512", "model.filters=[4]", "threads=1", "hydra.launcher.jobs=1"]
    lines = [*quick, f"output_dir={tmp_path}", "name=mine", "optimizer=sgd", "optimizer.lr=1e-3,1e30"]
    assert isolated.run(whole, lines) == 1
    done, failed = (server.runs[config.id] for config in Composer().sweep(lines[:4] + lines[5:]))
    assert (done.summary["status"], failed.summary["status"]) == ("done", "failed")
    assert (done.exit_code, failed.exit_code) == (0, 1)
    report = server.runs[ID]
    assert (report.summary["report/runs"], report.summary["report/done"]) == (2, 1)
    assert {run.identity["groupName"] for run in server.runs.values()} == {"mine"}
