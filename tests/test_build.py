"""module() and load(): whole LightningModules for anyone's Trainer; every word of every group trains."""

import math

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

import cnnlab
from cnnlab.allowed import RequestError
from cnnlab.build import assemble
from cnnlab.compose import Composer
from cnnlab.config import Config
from cnnlab.registry import CONF, factory, node
from cnnlab.task.classify import Classify
from cnnlab.train import train
from tests.recording import record

# Groups that a training step passes through; the rest have tests of their own.
GROUPS = (
    "model",
    "conv",
    "activation",
    "pooling",
    "loss",
    "regularizer",
    "optimizer",
    "schedule",
    "preprocessing",
)
WORDS = [
    f"{p.parent.name}={p.stem}"
    for p in sorted(CONF.glob("*/*.yaml"))
    if p.parent.name in (*GROUPS, "augmentation")
    and p.stem != "nearest_neighbor"  # it takes no steps
    and (p.parent.name != "loss" or factory(node("loss", p.stem)).func.targets == "class")
]


def tiny(shape: tuple[int, int, int], examples: int = 12) -> DataLoader:
    images = torch.randint(0, 256, (examples, *shape), dtype=torch.uint8)
    return DataLoader(TensorDataset(images, torch.arange(examples) % 10), batch_size=6)


def plain_trainer(tmp_path, **arguments) -> pl.Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    return pl.Trainer(
        default_root_dir=tmp_path, accelerator="cpu", enable_checkpointing=False, **quiet, **arguments
    )


def smallest(config: Config) -> tuple[tuple[int, int, int], Classify]:
    """The task on the smallest of some images that its model takes."""
    for size in (12, 32, 67):
        try:
            return (3, size, size), assemble(config, (3, size, size), classes=10)
        except RequestError as refusal:
            if "input_shape" not in str(refusal) or size == 67:
                raise
    raise AssertionError


@pytest.mark.filterwarnings(
    "ignore:The 'train_dataloader' does not have many workers", "ignore:.*num_workers"
)
@pytest.mark.parametrize("word", WORDS)
def test_every_word_trains_a_step(word, tmp_path):
    config = Composer().one([word, "ortho_weight=0.1"])
    shape, task = smallest(config)
    loader = tiny(shape)
    task.preprocessing.fit(loader.dataset.tensors[0])
    before = [parameter.detach().clone() for parameter in task.parameters()]
    plain_trainer(tmp_path, max_steps=1, limit_val_batches=0, precision="bf16-mixed").fit(
        task, loader, loader
    )
    after = list(task.parameters())
    assert all(parameter.isfinite().all() for parameter in after)
    assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))


@pytest.mark.filterwarnings("ignore:.*num_workers", "ignore:.*does not have many workers")
def test_anyones_trainer_fits_tests_and_predicts_with_a_module(tmp_path):
    task = cnnlab.module("conv=decoupled_tanh", "ortho_weight=0.1", "schedule=one_cycle")
    loader = tiny((1, 8, 8), examples=60)
    trainer = plain_trainer(tmp_path, max_epochs=3)
    trainer.fit(task, loader, loader)
    assert {"train/loss", "val/accuracy", "ortho/loss"} <= set(trainer.callback_metrics)
    tested = trainer.test(task, loader, verbose=False)[0]
    assert set(tested) == {"test/loss", "test/accuracy"}
    scores = torch.cat(trainer.predict(task, loader))
    assert scores.shape == (60, 10)
    accuracy = (scores.argmax(1) == loader.dataset.tensors[1]).float().mean()
    assert math.isclose(tested["test/accuracy"], accuracy.item(), rel_tol=1e-6)


def test_load_gives_the_trained_module_with_its_best_weights(tmp_path):
    lines = ["logger=none", "epochs=3", "conv=orthogonal", "activation=crelu", f"output_dir={tmp_path}"]
    config = Composer().one(lines)
    result = train(config)
    task = cnnlab.load(config.folder)
    assert not task.training
    from cnnlab.build import build_data

    images, labels = build_data(config).test
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=result.precision == "bf16-mixed"):
        accuracy = (task(images).argmax(1) == labels).float().mean().item()
    assert math.isclose(accuracy, result.metrics["test/accuracy"], abs_tol=1 / len(labels))


@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
def test_load_keeps_the_bits_of_the_weights_whatever_their_precision(tmp_path, precision):
    lines = ["logger=none", "epochs=1", "trainer.max_steps=2", f"trainer.precision={precision}"]
    config = Composer().one([*lines, "preprocessing=standardize", f"output_dir={tmp_path}"])
    assert train(config).status == "done"
    trained = torch.load(config.folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    task = cnnlab.load(config.folder)
    for name, value in task.state_dict().items():
        assert value.dtype == trained[name].dtype and torch.equal(value, trained[name]), name
    scores = task(torch.zeros(2, 1, 8, 8, dtype=torch.uint8))
    assert scores.dtype == task.dtype == trained["net.features.0.weight"].dtype != torch.float32


def test_load_says_what_is_missing(tmp_path):
    with pytest.raises(RequestError, match=r"no result\.json, so no run"):
        cnnlab.load(tmp_path)
    with pytest.raises(RequestError, match=r"no checkpoints/best\.ckpt, so no weights"):
        cnnlab.load(record(tmp_path))


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("config.yaml", "a: [1", "config.yaml cannot be read"),
        ("config.yaml", "- 1", "config.yaml cannot be read"),
        ("config.yaml", "seed: ${nope}", "config.yaml cannot be read"),
        ("checkpoints/best.ckpt", "x", "checkpoints/best.ckpt: "),
    ],
)
def test_load_says_in_one_line_what_is_broken(tmp_path, file, text, said):
    folder = record(tmp_path)
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "best.ckpt").touch()
    (folder / file).write_text(text)
    with pytest.raises(RequestError) as refused:
        cnnlab.load(folder)
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_load_changes_neither_threads_nor_the_generator(tmp_path):
    lines = ["logger=none", "epochs=1", "trainer.max_steps=1", "threads=2", f"output_dir={tmp_path}"]
    config = Composer().one(lines)
    train(config)
    torch.set_num_threads(1)
    before = torch.get_rng_state()
    cnnlab.load(config.folder)
    assert torch.get_num_threads() == 1 and torch.equal(torch.get_rng_state(), before)


def test_a_loaded_configuration_is_not_trusted(tmp_path):
    config = Composer().one(["logger=none", "epochs=1", "trainer.max_steps=1", f"output_dir={tmp_path}"])
    train(config)
    path = config.folder / "config.yaml"
    evil = path.read_text().replace("trusted: []", "trusted: [os]")
    path.write_text(evil.replace("cnnlab.conv.standard.StandardConv2d", "os.system"))
    with pytest.raises(RequestError, match=r"os\.system"):
        cnnlab.load(config.folder)


def test_train_loss_is_the_loss_without_penalties(tmp_path):
    task = cnnlab.module("ortho_weight=1000")
    images = torch.randint(0, 17, (6, 1, 8, 8), dtype=torch.uint8)
    labels = torch.arange(6)
    objective = task.training_step((images, labels), 0)
    means = task.means("train")
    expected = torch.nn.functional.cross_entropy(task(images), labels)
    torch.testing.assert_close(means["train/loss"], expected.detach())
    penalty = 1000 * task.regularizer.orthogonality_of(task.net)
    torch.testing.assert_close(objective.detach(), expected.detach() + penalty)


def test_means_weigh_batches_by_their_size():
    task = cnnlab.module()
    images = torch.randint(0, 17, (7, 1, 8, 8), dtype=torch.uint8)
    labels = torch.arange(7)
    for part in (slice(0, 5), slice(5, 7)):
        task.validation_step((images[part], labels[part]), 0)
    whole = torch.nn.functional.cross_entropy(task(images), labels)
    torch.testing.assert_close(task.means("val")["val/loss"], whole.detach())
