"""Checkpoints `last` and `best`, so that a run killed at any step ends with the numbers of one never killed.

Saved are only consistent points: between two steps of an epoch, or after an epoch's validation. On the
last batch of an epoch Lightning's own state is neither, so nothing is saved there. A file is written beside
its final name and then renamed, so that under its final name there is always a whole one.
"""

import math
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint

from cnnlab.atomic import replacing
from cnnlab.parallel import distributed
from cnnlab.recorder import Recorder
from cnnlab.signals import Signals

SAVE_EVERY_S = 60.0  # in mid-epoch: what a kill may cost of a long epoch


class LastAndBest(Checkpoint):
    """Saves `last.ckpt`, and `best.ckpt` by val/accuracy, ties by val/loss; stops the run on a signal."""

    STATE = ("best_score", "best_metrics", "best_epoch")

    def __init__(self, folder: Path, recorder: Recorder, signals: Signals) -> None:
        self.start = folder / "start.ckpt"  # what a pretraining left
        self.last, self.best = folder / "last.ckpt", folder / "best.ckpt"
        self.recorder, self.signals = recorder, signals
        self.best_score = (-math.inf, -math.inf)  # (accuracy, -loss)
        self.best_metrics: dict[str, float] = {}
        self.best_epoch: int | None = None
        self.began = self.saved_at = time.monotonic()

    @property
    def wall_s(self) -> float:
        """Seconds since the run began, less those between a stop and the resumption."""
        return time.monotonic() - self.began

    def step_of_last(self) -> int | None:
        """The step at which `last` was saved; None where there is none."""
        if not self.last.exists():
            return None
        return torch.load(self.last, map_location="cpu", weights_only=True, mmap=True)["global_step"]

    def on_train_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        self.signals.install()
        self.saved_at = time.monotonic()

    def on_validation_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        self.signals.install()

    def on_test_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        self.signals.install()

    def on_train_batch_end(
        self, trainer: pl.Trainer, task: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        distributed.agree(self.signals)
        due = self.signals.received is not None or time.monotonic() - self.saved_at > SAVE_EVERY_S
        # Nor is a point consistent where gradients of half a step are pending: no checkpoint holds them.
        whole_step = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if due and whole_step and not trainer.is_last_batch:
            self.recorder.read_losses()  # one that is not finite must not enter a checkpoint
            self.recorder.pause()
            self.save(trainer, self.last)
            self.signals.check()

    def on_train_epoch_end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        metrics = {key: value for key, value in self.recorder.epoch.items() if key.startswith("val/")}
        score = (metrics.get("val/accuracy", -math.inf), -metrics.get("val/loss", math.inf))
        if score > self.best_score or not self.best_metrics:  # without validation the last is the best
            self.best_score, self.best_metrics, self.best_epoch = score, metrics, trainer.current_epoch + 1
            self.save(trainer, self.best, weights_only=True)
        self.save(trainer, self.last)
        distributed.agree(self.signals)
        self.signals.check()

    def save(self, trainer: pl.Trainer, path: Path, weights_only: bool = False) -> None:
        if distributed.rank() == 0:
            with replacing(path) as part:
                trainer.save_checkpoint(part, weights_only=weights_only)
        self.saved_at = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in (*self.STATE, "wall_s")}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.began -= state_dict["wall_s"]
        self.__dict__.update({name: state_dict[name] for name in self.STATE})
