"""Holds a run at a step until it is struck, however fast it trains and however seldom a test looks."""

import os
from pathlib import Path

from cnnlab.atomic import replacing
from cnnlab.averaging import NoAveraging
from cnnlab.checkpoint import LastAndBest
from tests.processes import wait_for

# In mid-epoch, after the checkpoint of the first one, where a batch has 128 digits and so an epoch 11 steps.
GATED = ["trusted=[tests]", "averaging._target_=tests.gate.Gate", "averaging.step=15"]


class Gate(NoAveraging):
    """Holds the run before a step, once, until a signal asks it to stop; else a kill ends it there."""

    def __init__(self, *, step: int = 0):
        self.step = step

    def on_train_batch_start(self, trainer, task, batch, batch_idx):
        if trainer.global_step != self.step:
            return
        (keeper,) = (each for each in trainer.checkpoint_callbacks if isinstance(each, LastAndBest))
        sign = keeper.last.parent.with_name("held")
        if sign.exists():
            return
        with replacing(sign) as part:
            part.write_text(str(os.getpid()))
        assert wait_for(lambda: keeper.signals.received is not None, seconds=3600), "nothing struck"


def held(folder: Path) -> int | None:
    """The process that is, or was, held at the gate of the run in a folder."""
    sign = folder / "held"
    return int(sign.read_text()) if sign.exists() else None
