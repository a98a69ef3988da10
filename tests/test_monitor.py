"""The monitor: figures by hand, a run left as it is, rows that survive a kill, what it costs."""

import json
import logging
import signal
import sys
import time
from typing import ClassVar

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

from cnnlab import available, create
from cnnlab.allowed import RequestError
from cnnlab.compose import Composer
from cnnlab.history import History
from cnnlab.logger import WandbLogger
from cnnlab.monitor import figures
from cnnlab.monitor.histograms import Histogram, Histograms
from cnnlab.monitor.layers import LayerMonitor
from cnnlab.recorder import Recorder
from cnnlab.result import Result
from cnnlab.train import train
from tests import isolated, test_resume

QUICK = ["logger=none", "epochs=2", "batch_size=128", "threads=1"]
MONITOR = ["monitor=layers", "monitor.every_n_steps=4"]
KINDS = ("update_ratio", "near_zero", "dead", "saturated")


def run(tmp_path, *lines):
    config = Composer().one([*QUICK, f"output_dir={tmp_path}", *lines])
    return train(config), config.folder


class TwoLayers(pl.LightningModule):
    """x -> activation(w1 x) -> w2, trained by plain SGD on the sum of the scores."""

    def __init__(self, first, second, activation):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(1, 2, bias=False), activation, nn.Linear(2, 1, bias=False))
        with torch.no_grad():
            self.net[0].weight.copy_(torch.tensor(first).view(2, 1))
            self.net[2].weight.copy_(torch.tensor(second).view(1, 2))

    def training_step(self, batch, batch_idx):
        return self.net(batch).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def monitored(task, folder, batches, logger=None, **trainer):
    """The row and the histograms of the first step."""
    recorder = Recorder(History(folder / "history.csv"))
    recorder.logger = logger
    monitor = LayerMonitor(bins=2, recorder=recorder, activations=(nn.ReLU, nn.Sigmoid))
    none = ("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing")
    quiet = dict.fromkeys(none, False)
    pl.Trainer(callbacks=[monitor], max_steps=1, accelerator="cpu", **quiet, **trainer).fit(
        task, DataLoader(batches, batch_size=None)
    )
    (row,), ((step, histograms),) = recorder.history.rows(), monitor.histograms.read()
    assert row["step"] == step == 1
    return row, histograms


def test_the_figures_of_a_two_layer_net_are_those_worked_out_by_hand(tmp_path):
    task = TwoLayers([1.0, -1.0], [4.0, 0.003], nn.ReLU())
    row, histograms = monitored(task, tmp_path, [torch.tensor([[1.0], [2.0]])])
    # hidden (1, 0), (2, 0): the second unit is dead. dL/dw2 = (1 + 2, 0), dL/dw1 = 4 * (1 + 2) and 0.
    assert row["dead/dense1"] == 0.5 and "dead/dense2" not in row
    assert row["update_ratio/dense1"] == pytest.approx(0.1 * 12 / 2**0.5)
    assert row["update_ratio/dense2"] == pytest.approx(0.1 * 3 / (16 + 9e-6) ** 0.5)
    assert row["near_zero/dense2"] == 0.5, "0.003 is less than a thousandth of 4 - 0.3"
    assert row["near_zero/dense1"] == 0 and "saturated/dense1" not in row
    assert histograms["activation/dense1"] == Histogram(0, 2, [2, 2])
    assert histograms["activation/dense2"] == Histogram(4, 8, [1, 1])
    assert histograms["gradient/dense1"] == Histogram(0, 12, [1, 1])
    assert histograms["weight/dense2"] == Histogram(pytest.approx(0.003), pytest.approx(3.7), [1, 1])


def test_outputs_at_a_bound_are_counted_and_biases_are_not_weights(tmp_path):
    row, _ = monitored(TwoLayers([100.0, 0.0], [1.0, 1.0], nn.Sigmoid()), tmp_path, [torch.ones(1, 1)])
    assert row["saturated/dense1"] == 0.5
    with_bias = nn.Linear(1, 1)
    assert figures.weights(with_bias).numel() == 1 and len(figures.trained(with_bias)) == 1


def test_an_update_is_that_of_the_whole_accumulated_step(tmp_path):
    task = TwoLayers([1.0, -1.0], [4.0, 0.003], nn.ReLU())
    batches = [torch.ones(1, 1), torch.full((1, 1), 2.0)]
    row, _ = monitored(task, tmp_path, batches, accumulate_grad_batches=2)
    assert row["update_ratio/dense1"] == pytest.approx(0.1 * 12 / 2 / 2**0.5)


@pytest.mark.parametrize(
    ("activation", "bounds"), [(nn.Tanh(), (-1, 1)), (nn.ReLU6(), (0, 6)), (nn.ReLU(), None)]
)
def test_bounds_are_found_by_trying(activation, bounds):
    assert figures.bounds(activation, torch.zeros(3, 4, 5, 5, dtype=torch.bfloat16)) == bounds


def test_only_tanh_and_sigmoid_have_two_bounds():
    input = torch.zeros(2, 4, 3, 3)
    words = {w for w in available("activation") if figures.bounds(create("activation", w), input)}
    assert words == {"sigmoid", "tanh"}


@pytest.mark.parametrize("special", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_is_not_counted(special):
    values = torch.tensor([0.0, special, 1.0, 2.0, special])
    assert figures.histogram(values, 2).tolist() == [0, 2, 1, 2]
    assert figures.histogram(torch.full((3,), special), 2)[2:].tolist() == [0, 0]


def test_extreme_ranges_have_histograms_too():
    assert figures.histogram(torch.full((5,), 7.0), 3).tolist() == [7, 7, 5, 0, 0]
    assert figures.histogram(torch.tensor([-3e38, 3e38]), 2)[2:].sum() == 2
    assert figures.histogram(torch.randn(1000), 8)[2:].tolist() != [0] * 8
    counts = figures.histogram(torch.arange(10 * figures.SAMPLE), 4)[2:]
    assert 0.5 * figures.SAMPLE < counts.sum() <= figures.SAMPLE and counts.max() - counts.min() <= 1


FILTERS = ["model.filters=[4]"]
KINDS_OF_RUN = {
    "all that draws": [*FILTERS, "conv=decoupled_tanh", "model.dropout=0.3", "augmentation=crop_flip"],
    "no weight of its own": [*FILTERS, "conv=orthogonal", "activation=maxout"],
    "nothing to train in a convolution": [*FILTERS, "conv=random", "activation=avr"],
    "layers within a layer": ["model.filters=[8]", "conv=shufflenet_unit", "activation=tanh"],
    "accumulated float64": [*FILTERS, "trainer.precision=64-true", "trainer.accumulate_grad_batches=3"],
    "bfloat16": [*FILTERS, "trainer.precision=bf16-mixed", "optimizer=momentum", "model.batch_norm=true"],
    "residual": ["model=resnet", "model.depth=8", "model.width=0.25", "trainer.max_steps=5"],
    "dense": ["model=mlp", "optimizer=rmsprop"],
}


def same(one, other):
    """Whether two states are equal to the bit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


@pytest.mark.parametrize("kind", KINDS_OF_RUN)
def test_a_monitored_run_is_the_same_run_to_the_bit(kind, tmp_path):
    plain, bare = run(tmp_path / "plain", *KINDS_OF_RUN[kind])
    seen, folder = run(tmp_path / "seen", *KINDS_OF_RUN[kind], *MONITOR)
    assert seen.status == plain.status == "done" and folder.name == bare.name
    timeless = [{k: v for k, v in r.metrics.items() if not k.startswith("time/")} for r in (plain, seen)]
    assert timeless[0] == timeless[1]
    for name in ("last.ckpt", "best.ckpt"):
        kept = [torch.load(f / "checkpoints" / name, weights_only=True) for f in (bare, folder)]
        for key in ("state_dict", "optimizer_states", "global_step"):
            assert same(kept[0].get(key), kept[1].get(key)), f"{name}: {key}"
    rows = [
        row for row in History(folder / "history.csv").rows() if any(key.startswith(KINDS) for key in row)
    ]
    assert rows[0]["step"] == 1 and rows[1]["step"] == 4
    assert all(0 <= value <= 1 for row in rows for key, value in row.items() if key.startswith(KINDS[1:]))
    ratios = [value for row in rows for key, value in row.items() if key.startswith(KINDS[0])]
    assert min(ratios) >= 0 and 1e-4 < max(ratios) < 1
    for _, histograms in Histograms(folder / "histograms.jsonl").read():
        assert all(sum(h.counts) for h in histograms.values())
    assert not (bare / "histograms.jsonl").exists() and not (bare / "monitor.png").exists()


def test_convolutions_that_learn_nothing_have_no_updates(tmp_path):
    _, folder = run(tmp_path, *FILTERS, "conv=random", *MONITOR)
    keys = {key for row in History(folder / "history.csv").rows() for key in row}
    assert {key for key in keys if key.startswith("update_ratio/")} == {"update_ratio/dense1"}
    assert {"near_zero/conv1", "near_zero/conv2", "dead/conv1", "dead/conv2"} <= keys


def test_a_monitored_run_that_is_stopped_has_each_row_once(tmp_path):
    lines = [*test_resume.EVERYTHING, "logger=none", "monitor=layers", "monitor.every_n_steps=3"]
    whole, stopped = ([*lines, f"output_dir={tmp_path / name}"] for name in ("whole", "stopped"))
    isolated.run(test_resume.train, whole)
    for strike in ((14, signal.SIGTERM), (26, signal.SIGKILL)):  # 11 steps an epoch
        with pytest.raises(isolated.Ended):
            isolated.run(test_resume.train, stopped, strike)
    folders = [test_resume.folder_of(lines) for lines in (whole, stopped)]
    with (folders[1] / "histograms.jsonl").open("a") as file:
        file.write('{"step": 27, "ep')
    isolated.run(test_resume.train, stopped)
    test_resume.same_numbers(*folders)
    one, other = ((folder / "histograms.jsonl").read_text() for folder in folders)
    assert one == other
    assert [json.loads(line)["step"] for line in one.splitlines()] == [1, *range(3, 34, 3)]


def test_monitored_or_not_it_is_one_run_and_is_not_run_again(tmp_path):
    first, folder = run(tmp_path, *FILTERS, "epochs=1")
    again, same = run(tmp_path, *FILTERS, "epochs=1", *MONITOR)
    assert same == folder and again.finished == first.finished
    assert Result.of(Composer().one(MONITOR)).variant == Result.of(Composer().one([])).variant
    assert Composer().one(MONITOR).summary == "defaults"


class Mirror:
    """A logger that keeps the pictures of the last run."""

    images: ClassVar[dict] = {}

    def __init__(self, **identity):
        pass

    def log_metrics(self, metrics, step):
        assert all(isinstance(value, int | float) for value in metrics.values())

    def conclude(self, metrics, exit_code, images):
        Mirror.images = images


def test_pictures_stand_in_the_folder_and_go_to_the_logger(tmp_path):
    outside = [f"logger._target_={__name__}.Mirror", "trusted=[tests]"]
    _, folder = run(tmp_path, *FILTERS, *MONITOR, *outside)
    assert set(Mirror.images) == {"filters", "monitor", "histograms"}
    for name, image in Mirror.images.items():
        with Image.open(folder / f"{name}.png") as kept:
            assert (np.asarray(kept) == image).all() and image.std() > 0


def test_wandb_gets_histograms_of_the_same_step(tmp_path):
    logged = []

    class Wandb(WandbLogger):
        def __init__(self):
            pass

        def log_metrics(self, metrics, step=None):
            logged.append((step, metrics))

    batch = torch.tensor([[1.0], [2.0]])
    monitored(TwoLayers([1.0, -1.0], [4.0, 0.003], nn.ReLU()), tmp_path, [batch], logger=Wandb())
    (_, row), (step, histograms) = logged
    assert step == 1 and "dead/dense1" in row and not row.keys() & histograms.keys() - {"epoch"}
    activation = histograms["activation/dense1"]
    assert activation.histogram == [2, 2] and activation.bins == [0, 1, 2]


def test_a_run_does_not_fail_for_want_of_a_picture(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with caplog.at_level(logging.WARNING, "cnnlab"):
        result, folder = run(tmp_path, *FILTERS, *MONITOR)
    assert result.status == "done" and not (folder / "monitor.png").exists()
    assert any("no pictures (ModuleNotFoundError" in record.message for record in caplog.records)


def test_a_run_that_diverges_says_the_same_and_has_its_pictures(tmp_path):
    result, folder = run(tmp_path, *FILTERS, *MONITOR, "optimizer=sgd", "optimizer.lr=1e30")
    assert result.status == "failed" and "at step 2" in str(result.error)
    assert (folder / "monitor.png").exists()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("monitor.every_n_steps=0", "must be a whole number >= 1, got 0"),
        ("monitor.near_zero=-1", "must be a number >= 0 and < 1, got -1"),
        ("monitor.bins=2.5", "must be a whole number >= 1, got 2.5"),
    ],
)
def test_a_knob_out_of_range_is_refused_before_anything_is_written(line, said, tmp_path):
    with pytest.raises(RequestError) as refused:
        run(tmp_path, "monitor=layers", line)
    assert str(refused.value).startswith(f"monitor=layers {line}: {said}") and not any(tmp_path.iterdir())


@pytest.mark.slow
def test_it_costs_less_than_three_hundredths_of_a_step(tmp_path, monkeypatch):
    clock = {"monitor": 0.0, "steps": 0.0}
    start, end = LayerMonitor.on_train_batch_start, LayerMonitor.on_train_batch_end

    def started(self, *arguments):
        self.began = time.thread_time()  # of this thread alone: a busy machine does not count
        start(self, *arguments)
        clock["monitor"] += time.thread_time() - self.began

    def ended(self, *arguments):
        trained = time.thread_time()
        end(self, *arguments)
        clock["monitor"] += time.thread_time() - trained
        clock["steps"] += time.thread_time() - self.began

    monkeypatch.setattr(LayerMonitor, "on_train_batch_start", started)
    monkeypatch.setattr(LayerMonitor, "on_train_batch_end", ended)
    result = train(Composer().one(["logger=none", "threads=1", "monitor=layers", f"output_dir={tmp_path}"]))
    assert result.status == "done"
    assert clock["monitor"] < 0.03 * (clock["steps"] - clock["monitor"]), clock
