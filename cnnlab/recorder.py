"""What a training leaves in history.csv and the logger: a row every n steps, one per epoch, and its speed."""

import math
import time
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint

from cnnlab.history import History
from cnnlab.parallel import distributed


class NonFiniteLoss(ArithmeticError):
    """The loss became inf or nan."""

    def __init__(self, step: int, loss: float) -> None:
        super().__init__(f"the loss is {loss} at step {step}")
        self.step = step


class Recorder(Checkpoint):
    """Writes rows before any checkpoint of the same moment, so that a resumed run has each row once.

    A Checkpoint to Lightning, since those come last, after the module has logged its epoch; listed before
    the one that saves. Losses stay on the device and are read every `trainer.log_every_n_steps`.
    """

    def __init__(self, history: History) -> None:
        self.history = history
        self.logger: Any = None  # a Lightning logger that can `conclude`
        self.step = 0  # that is being trained, counted from 1; with accumulation it has several batches
        self.losses: list[
            tuple[int, torch.Tensor]
        ] = []  # step and loss of the batches since the last reading
        self.row_step = 0  # of the last row
        self.epoch: dict[str, float] = {}  # metrics of the epoch that just ended
        self.images, self.seconds = 0, 0.0  # of the training batches of the whole run
        self.epoch_images, self.epoch_seconds = 0, 0.0
        self.since: float | None = None  # when the clock of the training batches was started
        self.validated = False

    def on_train_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        self.row_step = trainer.global_step
        if trainer.global_step == 0:
            self.record(trainer, {key: float(value) for key, value in task.constraints().items()})  # type: ignore[operator]

    def on_train_epoch_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        self.since = time.perf_counter()
        self.epoch_images, self.epoch_seconds, self.validated = 0, 0.0, False

    def on_train_batch_start(
        self, trainer: pl.Trainer, task: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.step = trainer.global_step + 1
        if self.since is None:  # after a pause, or resumed in mid-epoch
            self.since = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, task: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.losses.append((self.step, outputs["loss"].detach()))
        self.epoch_images += len(batch[1])
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        at_row = every > 0 and trainer.global_step % every == 0 and trainer.global_step > self.row_step
        if at_row or trainer.is_last_batch:
            self.read_losses()
            if trainer.is_last_batch:
                self.pause()
            if at_row:
                self.row_step = trainer.global_step
                lr = trainer.optimizers[0].param_groups[0]["lr"]
                self.record(trainer, {"train/loss_step": float(task.step_loss), "lr": lr})  # type: ignore[arg-type]

    def on_validation_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        self.pause()
        self.validated = True

    def on_train_epoch_end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        self.read_losses()
        self.pause()
        self.images += self.epoch_images
        self.seconds += self.epoch_seconds
        metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
        if not self.validated:
            metrics = {key: value for key, value in metrics.items() if not key.startswith("val/")}
        self.epoch = metrics | {"time/images_per_s": self.epoch_images / max(self.epoch_seconds, 1e-9)}
        self.record(trainer, self.epoch, epochs_done=trainer.current_epoch + 1)

    def read_losses(self) -> None:
        """Wait for the device and look at the losses since the last reading."""
        read, self.losses = self.losses, []
        if not read:
            return
        steps, losses = zip(*read, strict=True)
        for step, loss in zip(steps, torch.stack(losses).tolist(), strict=True):
            if not math.isfinite(loss):
                raise NonFiniteLoss(step, loss)

    def pause(self) -> None:
        """Stop the clock: what follows is not training."""
        if self.since is not None:
            self.epoch_seconds += time.perf_counter() - self.since
            self.since = None

    def record(self, trainer: pl.Trainer, metrics: dict[str, float], epochs_done: int | None = None) -> None:
        if distributed.rank():
            return
        epoch = trainer.current_epoch if epochs_done is None else epochs_done
        self.history.append({"step": trainer.global_step, "epoch": epoch, **metrics})
        if self.logger is not None:
            self.logger.log_metrics({"epoch": epoch, **metrics}, step=trainer.global_step)

    STATE = ("images", "seconds", "epoch_images", "epoch_seconds", "epoch")

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.STATE}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.__dict__.update(state_dict)
