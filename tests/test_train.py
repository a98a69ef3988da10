"""A whole run: what it leaves behind, what it touches, how it fails."""

import json
import logging
import math
from pathlib import Path

import pytest
import torch

from cnnlab import train as train_module
from cnnlab.__main__ import command
from cnnlab.compose import Composer
from cnnlab.data.digits import Digits
from cnnlab.data.images import ImageData
from cnnlab.history import History
from cnnlab.result import Result
from cnnlab.task.classify import Classify
from cnnlab.train import train

QUICK = ["logger=none", "epochs=2", "batch_size=128", "threads=1"]
SMALL = "model.filters=[8]"


def run(tmp_path: Path, *lines: str) -> tuple[Result, Path]:
    small = [] if "model=linear" in lines else [SMALL]
    config = Composer().one([*QUICK, *small, f"output_dir={tmp_path}", *lines])
    return train(config), config.folder


def timeless(result: Result) -> dict[str, float]:
    return {key: value for key, value in result.metrics.items() if not key.startswith("time/")}


def test_a_run_leaves_all_that_it_promises(tmp_path):
    result, folder = run(tmp_path, "conv=decoupled_tanh", "ortho_weight=0.1")
    assert {path.name for path in folder.iterdir()} == {
        *("config.yaml", "result.json", "history.csv", "checkpoints", "log.txt", "lock")
    }
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"last.ckpt", "best.ckpt"}
    written = json.loads((folder / "result.json").read_text())
    assert written["id"] == folder.name[-10:] and written["name"] == "default" and written["status"] == "done"
    assert written["choices"]["conv"] == "decoupled_tanh" and written["choices"]["model"] == "convnet"
    assert written["values"]["ortho_weight"] == 0.1 and written["values"]["model.filters"] == [8]
    assert "optimizer.lr" not in written["values"], "defaults are not repeated"
    assert written["overrides"][-1] == "ortho_weight=0.1"
    assert {"train/loss", "train/accuracy", "val/loss", "val/accuracy", "test/accuracy", "ortho/loss"} <= set(
        written["metrics"]
    )
    # 3*3*1*8 + 8, 3*3*8*8 + 8, (4*4*8 + 1) * 10
    assert written["params"] == 80 + 584 + 1290
    assert written["macs"] == 64 * 9 * 8 + 64 * 9 * 8 * 8 + 128 * 10
    assert written["epochs_done"] == 2 and written["best_epoch"] in (1, 2)
    assert written["device"] == "cpu" and written["threads"] == 1 and written["error"] is None
    assert written["wall_s"] > 0 and written["images_per_s"] > 0 and written["peak_memory_mb"] > 0
    assert written["started"] <= written["finished"]
    assert Result.read(folder) == result


def test_history_has_the_start_every_nth_step_and_every_epoch(tmp_path):
    _, folder = run(tmp_path, "trainer.log_every_n_steps=4")
    rows = History(folder / "history.csv").rows()  # 11 steps an epoch
    assert [row["step"] for row in rows] == [0, 4, 8, 11, 12, 16, 20, 22]
    assert "ortho/loss" in rows[0]
    assert [row["epoch"] for row in rows if "val/accuracy" in row] == [1, 2]
    assert all(
        "lr" in row and "train/loss_step" in row for row in rows if row["step"] % 4 == 0 and row["step"]
    )


def test_the_same_seed_gives_the_same_numbers_and_another_one_others(tmp_path):
    noisy = ["model.dropout=0.3", "augmentation=crop_flip"]
    first, _ = run(tmp_path / "a", *noisy)
    second, _ = run(tmp_path / "b", *noisy)
    other, _ = run(tmp_path / "c", *noisy, "seed=1")
    assert timeless(first) == timeless(second)
    assert timeless(first)["train/loss"] != timeless(other)["train/loss"]


def test_the_test_set_is_touched_once_with_the_best_weights(tmp_path, monkeypatch):
    served, scored = [], []
    loader, step = ImageData.test_dataloader, Classify.test_step
    monkeypatch.setattr(ImageData, "test_dataloader", lambda self: served.append(1) or loader(self))

    def scoring(self, batch, batch_idx):
        scored.append({name: value.clone() for name, value in self.state_dict().items()})
        return step(self, batch, batch_idx)

    monkeypatch.setattr(Classify, "test_step", scoring)
    _, folder = run(tmp_path, "epochs=3", "optimizer.lr=0.05")
    best = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    assert served == [1]
    assert all(torch.equal(best[name], weights[name]) for weights in scored for name in best)


def test_best_is_by_accuracy_then_by_loss(tmp_path):
    result, folder = run(tmp_path, "epochs=6", "optimizer.lr=0.01")
    epochs = [row for row in History(folder / "history.csv").rows() if "val/accuracy" in row]
    best = max(epochs, key=lambda row: (row["val/accuracy"], -row["val/loss"]))
    assert result.best_epoch == best["epoch"]
    assert result.metrics["val/accuracy"] == best["val/accuracy"]
    assert result.metrics["val/loss"] == best["val/loss"]
    assert result.metrics["train/loss"] == epochs[-1]["train/loss"], "train/* are those of the last epoch"


def test_a_done_run_is_shown_and_not_run_again(tmp_path, capsys, monkeypatch):
    line = [*QUICK, SMALL, f"output_dir={tmp_path}"]
    assert command(line) == 0
    monkeypatch.setattr(train_module, "train", lambda config: pytest.fail("it was run again"))
    assert command([*line, "name=default"]) == 0
    shown = capsys.readouterr().out
    assert "Done on" in shown and shown.count("test/accuracy") == 2
    assert "has changed" not in shown


def test_a_done_run_says_when_the_source_of_its_classes_has_changed(tmp_path, capsys):
    result, folder = run(tmp_path)
    result.sources["cnnlab.model.convnet.ConvNet"] = "0123456789"
    result.write(folder)
    assert command([*QUICK, SMALL, f"output_dir={tmp_path}"]) == 0
    assert "cnnlab.model.convnet.ConvNet has changed" in capsys.readouterr().out


def test_resume_false_runs_afresh_and_keeps_the_old_folder(tmp_path):
    _, folder = run(tmp_path)
    (folder / "mark").touch()
    again, same = run(tmp_path, "resume=false")
    assert same == folder and again.status == "done"
    assert not (folder / "mark").exists() and folder.with_name(f"{folder.name}.1").joinpath("mark").exists()
    run(tmp_path, "resume=false")
    assert folder.with_name(f"{folder.name}.2").exists()


def test_a_run_goes_by_its_content_not_by_how_it_was_asked_for(tmp_path):
    _, folder = run(tmp_path, "ortho_weight=0.0", "optimizer.lr=1e-3", "dataset=digits")
    assert Composer().one([*QUICK, SMALL, f"output_dir={tmp_path}"]).folder == folder


def test_a_loss_that_is_not_finite_stops_the_run_and_names_step_and_layer(tmp_path, capsys):
    code = command([*QUICK, SMALL, f"output_dir={tmp_path}", "optimizer=sgd", "optimizer.lr=1e30"])
    assert code == 1
    result = Result.read(next(tmp_path.rglob("result.json")).parent)
    assert result is not None and result.status == "failed"
    assert "at step 2" in str(result.error) and "output of net.features.2" in str(result.error)
    assert str(result.error) in capsys.readouterr().out.replace("\n", "")


def test_the_layer_named_is_the_one_that_began(tmp_path, monkeypatch):
    forward = torch.nn.MaxPool2d.forward

    def overflow(self, input):
        out = forward(self, input)
        return out * math.inf if self.training and torch.rand(()) < 0.2 else out

    monkeypatch.setattr(torch.nn.MaxPool2d, "forward", overflow)
    result, folder = run(tmp_path)
    assert result.status == "failed" and "net.features.4" in str(result.error), result.error
    assert "Traceback" in (folder / "log.txt").read_text()


def test_a_failing_run_is_recorded_with_its_error_and_can_be_asked_again(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Classify, "validation_step", lambda *_: 1 / 0)
        result, folder = run(tmp_path)
    assert result.status == "failed" and result.error == "ZeroDivisionError: division by zero"
    assert "ZeroDivisionError" in (folder / "log.txt").read_text()
    assert run(tmp_path)[0].status == "done"


def test_the_hard_constraint_is_the_orthogonal_convolution(tmp_path):
    result, folder = run(tmp_path, "ortho_weight=inf")
    assert result.choices["conv"] == "orthogonal"
    assert result.metrics["conv/violation"] < 1e-5
    assert json.loads((folder / "result.json").read_text())["values"]["ortho_weight"] == "inf"


def test_an_orthogonality_weight_with_nothing_to_weigh_warns_once(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "cnnlab"):
        result, _ = run(tmp_path, "conv=orthogonal", "ortho_weight=0.1")
    assert result.metrics["ortho/loss"] == 0
    assert sum("orthogonality" in record.message for record in caplog.records) == 1


def test_without_validation_the_last_weights_are_the_best(tmp_path):
    result, _ = run(tmp_path, "trainer.check_val_every_n_epoch=5", "epochs=3")
    assert result.best_epoch == 3 and "val/accuracy" in result.metrics


def test_the_loss_of_a_row_is_that_of_the_step_without_penalties(tmp_path):
    lines = ["trainer.log_every_n_steps=1", "trainer.max_steps=1", "ortho_weight=1000"]
    result, folder = run(tmp_path, *lines)
    row = History(folder / "history.csv").rows()[1]
    assert row["train/loss_step"] == pytest.approx(result.metrics["train/loss"], rel=1e-6)


def test_a_loss_that_is_not_finite_is_found_among_accumulated_batches(tmp_path):
    lines = ["optimizer=sgd", "optimizer.lr=1e30", "trainer.accumulate_grad_batches=4"]
    result, _ = run(tmp_path, *lines)
    assert "at step 2;" in str(result.error) and "output of net.features" in str(result.error)


@pytest.mark.parametrize("precision", ["32-true", "64-true", "bf16-mixed", "bf16-true"])
def test_every_precision_of_the_cpu_trains(precision, tmp_path):
    result, _ = run(tmp_path, f"trainer.precision={precision}", "epochs=1")
    assert result.status == "done", result.error
    assert 0 < result.metrics["train/accuracy"] < 1


def test_a_model_without_convolutions_says_that_conv_changes_nothing(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "cnnlab"):
        run(tmp_path, "model=linear", "conv=orthogonal", "epochs=1")
    assert any("conv=orthogonal changes nothing" in record.message for record in caplog.records)


def test_max_steps_ends_a_run_in_mid_epoch_with_all_its_metrics(tmp_path):
    result, _ = run(tmp_path, "trainer.max_steps=3")
    assert result.status == "done" and {"val/accuracy", "test/accuracy", "train/loss"} <= set(result.metrics)


def test_gradients_are_clipped_on_request(tmp_path):
    free, _ = run(tmp_path)
    clipped, _ = run(tmp_path, "trainer.gradient_clip_val=0.001", "optimizer=sgd")
    assert clipped.status == "done" and clipped.metrics["train/loss"] > free.metrics["train/loss"]


def test_a_sweep_ends_in_means_and_deviations_over_seeds(tmp_path, capsys):
    line = ["-m", *QUICK, SMALL, f"output_dir={tmp_path}", "ortho_weight=0,0.1", "seed=range(2)"]
    assert command(line) == 0
    shown = capsys.readouterr().out
    results = [Result.read(path.parent) for path in tmp_path.rglob("result.json")]
    assert len(results) == 4 and len({result.id for result in results if result}) == 4
    for weight in (0, 0.1):
        accuracies = [
            r.metrics["test/accuracy"] for r in results if r and r.values.get("ortho_weight", 0) == weight
        ]
        mean, deviation = sum(accuracies) / 2, abs(accuracies[0] - accuracies[1]) / math.sqrt(2)
        assert f"{mean:.4f} ± {deviation:.4f}" in shown
    assert "±" in shown and "Traceback" not in shown


def test_a_refused_job_does_not_stop_a_sweep(tmp_path, capsys):
    line = ["-m", *QUICK, SMALL, f"output_dir={tmp_path}", "activation=maxout", "activation.k=3,2"]
    assert command(line) == 2
    err = capsys.readouterr().err
    assert err.startswith("activation=maxout activation.k=3: ") and err.count("\n") == 1
    assert len(list(tmp_path.rglob("result.json"))) == 1


def test_training_learns_the_digits(tmp_path):
    config = Composer().one(["logger=none", f"output_dir={tmp_path}", "epochs=5"])
    assert train(config).metrics["test/accuracy"] > 0.93
    assert len(Digits().load()[0][1]) == 1797
