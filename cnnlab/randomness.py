"""Every step draws from (seed, step) alone, so that no generator's state needs saving."""

from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch


class StepSeed(pl.Callback):
    """Seeds torch's generators, on every device, before each training step: dropout, augmentation."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: pl.Trainer, task: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        seed_step(self.seed, trainer.current_epoch, batch_idx)


def seed_step(seed: int, epoch: int, batch: int) -> None:
    mixed = np.random.SeedSequence(seed, spawn_key=(epoch, batch))
    torch.manual_seed(int(mixed.generate_state(1, np.uint64)[0]))
