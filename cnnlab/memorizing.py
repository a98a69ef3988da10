"""Models that learn by heart (`memorize`): given the training images once, they take no steps."""

import logging
from typing import TYPE_CHECKING

import torch

from cnnlab.allowed import RequestError
from cnnlab.config import Config, default_words
from cnnlab.data.stream import Stream
from cnnlab.refusals import refusals

if TYPE_CHECKING:  # Lightning takes seconds to import
    import pytorch_lightning as pl

    from cnnlab.checkpoint import LastAndBest
    from cnnlab.data.images import ImageData
    from cnnlab.task.classify import Classify

log = logging.getLogger("cnnlab")

BATCH = 1_000
OF_STEPS = (
    *("optimizer", "schedule", "momentum", "initializer", "regularizer", "averaging", "augmentation"),
    *("monitor", "epochs", "ortho_weight"),
)


def memorizes(task: "Classify") -> bool:
    return hasattr(task.net, "memorize")


@torch.no_grad()
def memorize(config: Config, task: "Classify", data: "ImageData") -> None:
    """Give the net the preprocessed training images and their labels."""
    if hasattr(task.loss, "class_scores"):
        raise RequestError(
            f"{config.says('loss')}: has scores of its own, {config.says('model')} one a class"
        )
    if data.targets != "class":
        kind = f"{config.says('dataset', 'targets')} has {data.targets}"
        raise RequestError(f"{config.says('model')}: takes classes, {kind}")
    if config.choices.get("pretraining", "none") != "none":
        raise RequestError(f"{config.says('pretraining')}: {config.says('model')} takes no steps")
    images, labels = data.train
    if isinstance(images, Stream):
        where = config.says("dataset", "in_memory")
        raise RequestError(f"{where}: the images are streamed, and {config.says('model')} holds all of them")
    pixels = torch.cat([task.preprocessing(batch) for batch in images.split(BATCH)])
    with refusals(config, "model"):
        task.net.memorize(pixels, labels)  # type: ignore[operator]
    defaults = default_words()
    told = {k: v for k, v in (config.choices | config.values).items() if v != defaults.get(k)}
    for key, value in told.items():
        if key.partition(".")[0] in OF_STEPS:
            log.warning("%s takes no steps: %s=%s changes nothing", config.says("model"), key, value)


@torch.no_grad()
def conclude(trainer: "pl.Trainer", task: "Classify", data: "ImageData", checkpoints: "LastAndBest") -> None:
    """Choose on validation what is left to choose, and save the net as the best there is."""
    device = trainer.strategy.root_device
    task.to(device).eval()
    if len(task.net.ks) > 1:  # type: ignore[arg-type]
        batches = ((images.to(device), labels.to(device)) for images, labels in data.val_dataloader())
        accuracies = task.net.choose_k((task.preprocessing(images), labels) for images, labels in batches)  # type: ignore[operator]
        told = ", ".join(f"{accuracy:.4f} with k={k}" for k, accuracy in accuracies.items())
        log.info("val/accuracy %s: k=%s is kept", told, int(task.net.k))  # type: ignore[arg-type]
    trainer.strategy.connect(task)
    checkpoints.save(trainer, checkpoints.best, weights_only=True)
