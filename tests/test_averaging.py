from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
import yaml
from torch import nn

import cnnlab
from cnnlab.averaging import Averaging
from cnnlab.compose import Composer
from cnnlab.history import History
from cnnlab.train import train

WORDS = ["ema", "running_average"]
QUICK = [
    "logger=none",
    "threads=1",
    "batch_size=128",
    "trainer.precision=32-true",
    "trainer.log_every_n_steps=1",
]


class Line(pl.LightningModule):
    """One weight that is 1, 2, 3 ... after each step: its gradient is -1, the learning rate 1."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))
        self.steps_per_epoch = 3
        self.validated: list[float] = []
        self.trained: list[float] = []

    def training_step(self, batch, batch_idx):
        self.trained.append(self.weight.item())
        self.count += 1
        return -self.weight

    def validation_step(self, batch, batch_idx):
        self.validated.append(self.weight.item())

    def configure_optimizers(self):
        self.steps = self.trainer.max_epochs * self.steps_per_epoch
        return torch.optim.SGD(self.parameters(), lr=1.0)


def fit(averaging: Averaging, epochs: int, tmp_path, **knobs) -> Line:
    task, batches = Line(), torch.utils.data.DataLoader(torch.zeros(3), batch_size=1)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=[averaging],
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=tmp_path,
        **quiet,
        **knobs,
    )
    trainer.fit(task, batches, batches)
    return task


@pytest.mark.filterwarnings("ignore::pytorch_lightning.utilities.warnings.PossibleUserWarning")
@pytest.mark.filterwarnings("ignore:`isinstance")
@pytest.mark.parametrize("check_val_every_n_epoch", [1, 2])
@pytest.mark.parametrize(
    ("word", "knobs", "decays"),
    [
        ("ema", {"decay": 0.2}, [1 / 10, 2 / 11, 0.2, 0.2, 0.2, 0.2]),
        ("running_average", {"start": 0}, [0, 1 / 2, 2 / 3, 3 / 4, 4 / 5, 5 / 6]),
        ("running_average", {"start": 0.5}, [0, 0, 0, 0, 1 / 2, 2 / 3]),
    ],
)
def test_the_average_is_the_hand_computed_one(word, knobs, decays, check_val_every_n_epoch, tmp_path):
    averaging = cnnlab.create("averaging", word, **knobs)
    task = fit(averaging, 2, tmp_path, check_val_every_n_epoch=check_val_every_n_epoch)
    average, after = 0.0, []
    for weight, decay in enumerate(decays, start=1):
        average = decay * average + (1 - decay) * weight
        after.append(average)
    assert task.trained == [0, 1, 2, 3, 4, 5], "training goes on with the weights"
    epochs = (2, 5) if check_val_every_n_epoch == 1 else (5,)
    assert task.validated == pytest.approx([after[step] for step in epochs for _ in range(3)])
    assert task.weight.item() == pytest.approx(after[-1]) and task.count == 6


def run(tmp_path, *lines):
    config = Composer().one([*QUICK, "model.filters=[4]", "epochs=2", f"output_dir={tmp_path}", *lines])
    result = train(config)
    assert result.status == "done", result.error
    return result, config


def other_of(config) -> list[torch.Tensor]:
    """What the last checkpoint has beside the net's own state: at an epoch's end, the weights."""
    last = torch.load(config.folder / "checkpoints" / "last.ckpt", weights_only=True)
    return next(state["other"] for state in last["callbacks"].values() if "other" in state)


@pytest.mark.parametrize("word", WORDS)
def test_training_itself_is_not_changed(word, tmp_path):
    kind = ["model.batch_norm=true", "model.dropout=0.2", "augmentation=crop_flip"]
    plain, averaged = (run(tmp_path, *kind, f"averaging={each}") for each in ("none", word))
    rows = [History(config.folder / "history.csv").rows() for _, config in (plain, averaged)]
    for key in ("train/loss_step", "train/loss", "lr"):
        assert [row.get(key) for row in rows[0]] == [row.get(key) for row in rows[1]]
    assert rows[0][-1]["val/loss"] != rows[1][-1]["val/loss"]


@pytest.mark.parametrize("word", WORDS)
def test_the_best_checkpoint_holds_the_average_that_was_validated(word, tmp_path):
    result, config = run(tmp_path, f"averaging={word}", "model.batch_norm=true")
    task = cnnlab.load(config.folder)
    data = cnnlab.build.build_data(config)
    with torch.no_grad():
        loss = nn.functional.cross_entropy(task(data.val[0]), data.val[1])
    assert loss.item() == pytest.approx(result.metrics["val/loss"], rel=1e-6)
    weights = other_of(config)[0]  # of the first layer
    assert not torch.equal(task.net.features[0].weight, weights)


def test_a_run_without_validation_keeps_the_average_too(tmp_path):
    result, config = run(tmp_path, "averaging=running_average", "trainer.check_val_every_n_epoch=5")
    best = torch.load(config.folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    last = torch.load(config.folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert all(torch.equal(best[name], last["state_dict"][name]) for name in best)
    assert {"val/accuracy", "test/accuracy"} <= set(result.metrics)


def test_the_running_average_begins_at_its_share_of_the_steps_that_there_are(tmp_path):
    task = cnnlab.module(
        "model.filters=[4]", "averaging=running_average", "momentum=annealed", "optimizer=momentum"
    )
    task.trainer = SimpleNamespace(max_epochs=4, max_steps=6)
    task.steps_per_epoch = 5
    task.configure_optimizers()
    assert task.steps == 6
    average = cnnlab.create("averaging", "running_average", start=0.5)
    decays = [average.decay(SimpleNamespace(global_step=step), task) for step in range(1, 7)]
    assert decays == [0, 0, 0, 0, 1 / 2, 2 / 3]


def test_a_loss_that_is_not_finite_is_found_by_the_weights_not_their_average(tmp_path):
    lines = [*QUICK, "model.filters=[4]", "optimizer=sgd", "optimizer.lr=1e30", f"output_dir={tmp_path}"]
    plain, averaged = (train(Composer().one([*lines, f"averaging={w}"])) for w in ("none", "ema"))
    assert plain.error == averaged.error and "output of net.features" in str(plain.error)


def test_averages_of_low_precision_weights_are_kept_in_float32(tmp_path):
    _, config = run(tmp_path, "averaging=ema", "trainer.precision=bf16-true")
    assert {tensor.dtype for tensor in other_of(config)} == {torch.float32}


def test_a_run_from_before_there_were_averages_can_be_loaded(tmp_path):
    _, config = run(tmp_path)
    path = config.folder / "config.yaml"
    tree = yaml.safe_load(path.read_text())
    for group in ("averaging", "momentum", "initializer"):
        del tree[group]
    path.write_text(yaml.safe_dump(tree))
    assert not cnnlab.load(config.folder).training


@pytest.mark.parametrize(("word", "knob"), [("ema", "decay"), ("running_average", "start")])
@pytest.mark.parametrize("value", [-0.1, 1, "half", None])
def test_a_wrong_knob_is_named(word, knob, value):
    with pytest.raises(ValueError, match=rf"^{knob} must be a number.*, got "):
        cnnlab.create("averaging", word, **{knob: value})
