"""What the loggers keep of a run: W&B online, csv and none; and the knobs they refuse."""

import csv
import io

import numpy as np
import pytest
from PIL import Image
from pytorch_lightning import Trainer
from pytorch_lightning.demos.boring_classes import BoringModel
from pytorch_lightning.utilities import rank_zero_only

from tests.mirror import (
    CONFIG,
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
from tests.wandb_server import KEY

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
    assert (run.exit_code, run.preempted) == (3, False)
    picture = Image.open(io.BytesIO(run.files[run.summary["filters"]["path"]]))
    assert (np.asarray(picture) == IMAGE).all()
    assert warnings() == []
    assert server.artifacts == []


def test_what_is_told_once_an_epoch_is_drawn_over_epochs(server, tmp_path):
    mirror = logger(tmp_path)
    train(mirror, range(2))
    mirror.conclude(RESULT, 0, {})
    metrics = server.runs["0123456789"].config["_wandb"]["m"]  # 1: name, 2: pattern, 5: x axis, 6: 3 = hidden
    axes = {m.get("1") or m["2"]: metrics[m["5"] - 1]["1"] if "5" in m else "step" for m in metrics}
    assert axes == {
        "epoch": "step",
        "train/*": "epoch",
        "train/loss_step": "step",
        "val/*": "epoch",
        "ortho/*": "epoch",
        "conv/*": "epoch",
        "time/*": "epoch",
    }
    assert [m["1"] for m in metrics if 2 in m["6"]] == ["epoch"]


def test_a_run_stopped_by_a_signal_counts_as_preempted_and_goes_on(server, tmp_path):
    first = logger(tmp_path)
    train(first, range(3))
    first.conclude({"status": "interrupted"}, 143, {})
    run = server.runs["0123456789"]
    assert (run.exit_code, run.preempted, run.summary["status"]) == (143, True, "interrupted")
    second = logger(tmp_path, history=rows(range(3)))
    train(second, range(3, 5))
    second.conclude({"status": "done"}, 0, {})
    assert (run.exit_code, run.summary["status"]) == (0, "done")
    assert received(run) == rows(range(5))


def test_a_killed_run_asked_for_again_is_one_run_with_all_rows(server, tmp_path):
    killed(tmp_path, steps=5)
    run = server.runs["0123456789"]
    assert run.exit_code is None, "the server hears no more of it, and calls it crashed"
    again = logger(tmp_path, history=rows(range(3)))
    train(again, range(3, 6))
    again.conclude(RESULT, 0, {})
    assert received(run) == rows(range(6))
    assert (run.exit_code, run.summary["status"]) == (0, "done")


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
