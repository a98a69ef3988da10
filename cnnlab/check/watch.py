"""What steps of the real Trainer do to every parameter: its gradient, and how far it moves."""

from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from torch import Tensor


class Step(NamedTuple):
    """A step as the optimiser saw it."""

    batch: Any
    batch_idx: int
    state: dict[str, Tensor]  # of the task, when the gradients were there
    gradients: dict[str, Tensor]


class Watch(pl.Callback):
    """Keeps the last step of a training, the steepest gradients of all, and who has moved at its end."""

    def __init__(self) -> None:
        self.last: Step | None = None
        self.steepest: dict[str, Tensor] = {}  # the largest entry of any gradient so far
        self.ratios: dict[str, float] = {}  # |change| / |weights| in the last step
        self.moved: set[str] = set()
        self.start: dict[str, Tensor] = {}

    def on_train_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        self.start = _weights(task)

    def on_train_batch_start(
        self, trainer: pl.Trainer, task: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.batch, self.batch_idx = batch, batch_idx
        if trainer.is_last_batch:
            self.before = _weights(task)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, task: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        gradients = {n: p.grad.detach() for n, p in task.named_parameters() if p.grad is not None}
        for name, gradient in gradients.items():
            steepest = gradient.abs().max()
            self.steepest[name] = torch.maximum(self.steepest.get(name, steepest), steepest)
        if trainer.is_last_batch and self.last is None:  # some ask for the gradient several times a step
            state = {name: tensor.clone() for name, tensor in task.state_dict().items()}
            gradients = {name: gradient.clone() for name, gradient in gradients.items()}
            self.last = Step(self.batch, self.batch_idx, state, gradients)

    def on_train_batch_end(
        self, trainer: pl.Trainer, task: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not trainer.is_last_batch:
            return
        for name, weights in _weights(task).items():
            before = self.before[name]
            self.ratios[name] = float((weights - before).norm() / before.norm().clamp_min(1e-12))
            if not torch.equal(weights, self.start[name]):
                self.moved.add(name)


def _weights(task: pl.LightningModule) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in task.named_parameters() if p.requires_grad}
