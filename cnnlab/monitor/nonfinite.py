"""Where a loss that is not finite began, found by training the steps before it once more with open eyes."""

import functools
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn

from cnnlab.build import build_task
from cnnlab.checkpoint import LastAndBest
from cnnlab.config import Config
from cnnlab.data.images import ImageData
from cnnlab.parallel import distributed
from cnnlab.pretraining import pretrain
from cnnlab.randomness import StepSeed
from cnnlab.refusals import build
from cnnlab.trainer import build_trainer, steps_per_epoch


class Found(Exception):
    """The first tensor that was not finite, in words."""


class Trace(pl.Callback):
    """Looks at the weights before one training step and at every layer's output in it."""

    def __init__(self, step: int) -> None:
        self.step = step  # counted from 1

    def on_train_batch_start(
        self, trainer: pl.Trainer, task: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step != self.step - 1:
            return
        for name, parameter in task.named_parameters():
            if not parameter.isfinite().all():
                raise Found(f"it began in {name}, by the update of step {self.step - 1}")
        for name, layer in task.named_modules():
            if next(layer.children(), None) is None:
                layer.register_forward_hook(functools.partial(self.look, name))

    def look(self, name: str, layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, torch.Tensor) and not output.isfinite().all():
            raise Found(f"it began in the output of {name}")

    def on_train_batch_end(
        self, trainer: pl.Trainer, task: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step >= self.step:
            raise Found("it began in a penalty: all layers were finite")


@distributed.alone()
def where_it_began(config: Config, data: ImageData, checkpoints: LastAndBest, step: int) -> str:
    """The first weights or layer output that was not finite, replayed from the last checkpoint."""
    last = checkpoints.last
    data.move(torch.device("cpu"))  # where what is fitted was fitted, to the same bits
    task = build_task(config, data, fit=not last.exists())
    pretrain(config, task, data, checkpoints.signals, checkpoints.start)
    averaging = build(config, ("averaging",))  # a checkpoint may hold the weights in its state
    trainer = build_trainer(config, [StepSeed(config.tree["seed"]), averaging, Trace(step)])
    task.steps_per_epoch = steps_per_epoch(trainer, len(data.train_dataloader()))
    try:
        trainer.fit(task, data, ckpt_path=last if last.exists() else None, weights_only=True)
    except Found as found:
        return str(found)
    return "but it does not come back when replayed"
