"""Stops a run that lags behind what earlier ones had reached after as many epochs."""

from collections.abc import Sequence

import pytorch_lightning as pl

from cnnlab.history import History


class Pruned(Exception):
    """The run was stopped where it can be resumed, since others are ahead."""


class Pruning(pl.Callback):
    """Stops before an epoch if the best value of those before is worse than the bar.

    `bars[k]` is for k + 1 finished epochs, None where that says nothing. The epochs before are checkpointed
    by then, and what they have reached is in the history: a run resumed is judged as one never stopped, and
    one stopped here loses nothing if it is ever asked to go on.
    """

    def __init__(self, history: History, metric: str, maximize: bool, bars: Sequence[float | None]) -> None:
        self.history, self.metric, self.maximize, self.bars = history, metric, maximize, bars

    def on_train_epoch_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        self.judge(trainer.current_epoch)

    def judge(self, epochs: int) -> None:
        bar = self.bars[epochs - 1] if 0 < epochs <= len(self.bars) else None
        values = [row[self.metric] for row in self.history.rows() if self.metric in row]
        if bar is None or not values:
            return
        best = max(values) if self.maximize else min(values)
        if best < bar if self.maximize else best > bar:
            raise Pruned(f"after epoch {epochs}: {self.metric} {best:.4g}, the median of others is {bar:.4g}")
