"""The Trainer: its arguments from the configuration, precision and quietness from the machine."""

import sys
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, Checkpoint, RichProgressBar
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from cnnlab.config import Config
from cnnlab.parallel.distributed import InStep
from cnnlab.refusals import refusals
from cnnlab.registry import factory

THREADS = torch.get_num_threads()  # of the machine, before any run sets its own


def build_trainer(config: Config, callbacks: list[Callback]) -> pl.Trainer:
    """The Trainer of a configuration, for this process alone; the progress bar shows on a terminal only."""
    # What is to be float32 is: by default cuDNN's convolutions round it to 10 bits.
    torch.backends.cudnn.allow_tf32 = False
    node: dict[str, Any] = {"enable_model_summary": False, "num_sanity_val_steps": 0} | config.tree["trainer"]
    node["devices"] = 1  # cnnlab.parallel.ranks gives each process of a run the one that it sees
    if node.get("strategy") == "ddp":
        node["strategy"] = "auto"
        callbacks = [InStep(), *callbacks]
    progress = node["enable_progress_bar"] = bool(node["enable_progress_bar"]) and terminal()
    if progress:
        callbacks = [*callbacks, RichProgressBar(refresh_rate=5)]
    if node["precision"] == "auto":
        node["precision"] = best_precision(node["accelerator"])
    with refusals(config, "trainer"):
        try:
            # No logger of Lightning's (the Recorder writes rows, in step with the checkpoints), nor a
            # checkpoint of its own where none is asked for.
            return factory(node, config.tree["trusted"])(
                max_epochs=config.tree["epochs"],
                callbacks=callbacks,
                logger=False,
                enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),
            )
        except MisconfigurationException as error:
            raise ValueError(str(error)) from error


def terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


def best_precision(accelerator: str) -> str:
    """bf16 autocast where the hardware multiplies bf16 at full speed, else float32."""
    if torch.cuda.is_available() and accelerator != "cpu":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    elif torch.backends.mps.is_available() and accelerator != "cpu":
        fast = False
    else:
        able = torch.cpu.get_capabilities()
        fast = any(able.get(instructions) for instructions in ("avx512_bf16", "amx_bf16", "bf16"))
    return "bf16-mixed" if fast else "32-true"


def steps_per_epoch(trainer: pl.Trainer, batches: int) -> int:
    """Optimiser steps in an epoch of that many batches."""
    # Not trainer.estimated_stepping_batches: asking for it disables the restoring of a loader's position.
    limit = trainer.limit_train_batches
    batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    return max(1, -(-batches // trainer.accumulate_grad_batches))
