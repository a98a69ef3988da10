"""Averages of the weights over a training: what is validated, kept as best and tested in their place."""

from abc import ABC, abstractmethod
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from cnnlab.allowed import number
from cnnlab.conv.precision import wide


class NoAveraging(pl.Callback):
    """The weights as the optimiser leaves them."""


class Averaging(pl.Callback, ABC):
    """Keeps an average of the weights, which the net has from an epoch's validation to the next epoch.

    average <- decay * average + (1 - decay) * weights after every step. Validation, the best checkpoint and
    the test see the average, training goes on with the weights. Buffers that are measures (batch norm's
    running statistics) are averaged alike; counts are not. A checkpoint holds both: what the net does not
    have is the state of this callback.

    Lightning's WeightAveraging gives the net its weights back before the epoch's checkpoints are saved, and
    puts the average only into those that have the optimiser too; and it asks the device for its count of
    steps, every step.
    """

    def __init__(self) -> None:
        self.steps = 0  # of the training, that the average has seen
        self.lent = False  # the net holds the average, and `other` the weights
        self.other: list[Tensor] = []

    @abstractmethod
    def decay(self, trainer: pl.Trainer, task: pl.LightningModule) -> float:
        """The share of the average so far in the next one."""

    def on_fit_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        held = [wide(tensor) for tensor in self._held(task)]
        self.other = [
            mine.to(tensor, copy=True) for mine, tensor in zip(self.other or held, held, strict=True)
        ]

    def on_train_epoch_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        if self.lent:
            self._swap(task)

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: pl.Trainer, task: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step > self.steps:  # not after each of the batches that make a step
            weights = [wide(tensor) for tensor in self._held(task)]
            get_ema_multi_avg_fn(self.decay(trainer, task))(self.other, weights, self.steps)
            self.steps = trainer.global_step

    def on_validation_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        if self.other and not self.lent and trainer.state.fn == TrainerFn.FITTING:
            self._swap(task)

    def on_train_epoch_end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        if not self.lent:  # there was no validation
            self._swap(task)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "lent": self.lent, "other": self.other}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.__dict__.update(state_dict)

    @torch.no_grad()
    def _swap(self, task: pl.LightningModule) -> None:
        for mine, held in zip(self.other, self._held(task), strict=True):
            kept = mine.clone()
            mine.copy_(held)
            held.copy_(kept)
        self.lent = not self.lent

    def _held(self, task: pl.LightningModule) -> list[Tensor]:
        """What the task has to average, in place."""
        return [tensor for tensor in task.state_dict().values() if tensor.is_floating_point()]


class Ema(Averaging):
    """Exponential moving average of the weights.

    average <- d * average + (1 - d) * weights after step t = 1, 2, ...,  d = min(decay, t / (9 + t)): a run
    shorter than 1 / (1 - decay) steps is not held back by its initial weights.

    Source: Polyak & Juditsky 1992; the growing decay: TensorFlow's ExponentialMovingAverage.
    Differs: torch's EMA begins at the weights of the first step, with a constant decay.
    """

    def __init__(self, *, decay: float = 0.999):
        super().__init__()
        self.most = number("decay", decay, at_least=0, below=1)

    def decay(self, trainer: pl.Trainer, task: pl.LightningModule) -> float:
        return min(self.most, trainer.global_step / (9 + trainer.global_step))


class RunningAverage(Averaging):
    """Mean of the weights after every step of the last part of a training.

    It begins after the share `start` of the steps; until then it is the weights themselves.

    Source: Polyak & Juditsky 1992, Acceleration of stochastic approximation by averaging; Izmailov et al.
    2018, Averaging weights leads to wider optima, arXiv:1803.05407, which takes one each epoch.
    """

    def __init__(self, *, start: float = 0.5):
        super().__init__()
        self.start = number("start", start, at_least=0, below=1)

    def decay(self, trainer: pl.Trainer, task: pl.LightningModule) -> float:
        before = int(self.start * task.steps)  # type: ignore[operator]
        averaged = max(1, trainer.global_step - before)
        return (averaged - 1) / averaged
