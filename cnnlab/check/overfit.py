"""Twenty examples learnt by heart: what cannot do that cannot do anything."""

import functools
from typing import Any

import pytorch_lightning as pl
import torch

from cnnlab.check.finding import Finding, skipped
from cnnlab.check.subject import Steps, Subject, without_chance
from cnnlab.data.batches import Batches

EXAMPLES = 20
STEPS = 1000
ADAM = (1e-2, 1e-3)  # learning rates to try where the run's own optimiser does not do
LEFT = 0.02  # of the initial loss


class Settled(pl.Callback):
    """Stops once the loss is as good as 0, or far above what it was."""

    def __init__(self, before: float) -> None:
        self.low, self.high = LEFT / 2 * before, 10 * before

    def on_train_batch_end(
        self, trainer: pl.Trainer, task: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx % 10 == 9 and not self.low < task.step_loss < self.high:
            trainer.should_stop = True


def check(subject: Subject) -> Finding:
    """Twenty examples are learnt by heart, without penalties, dropout and augmentation.

    Source: CS231n, "Overfit a tiny subset of data".
    """
    if not subject.trainable:
        return skipped("no parameter is trained")
    before, after = learn(subject)
    figure, words = f"{before:.2g} to {after:.2g}", f"the loss of {EXAMPLES} examples"
    if 0 <= after <= LEFT * before:
        return Finding("pass", figure, f"{words} learnt by heart")
    if not 0 <= after <= before:
        return Finding("fail", figure, f"{words}: a sign is wrong, or optimizer.lr is too high")
    for lr in ADAM:
        _, left = learn(subject, functools.partial(torch.optim.Adam, lr=lr))
        if left <= LEFT * before:
            words += f" in {STEPS} steps; Adam at {lr:g} gets to 0: try another optimizer.lr"
            return Finding("warn", figure, words)
    return Finding("fail", figure, f"{words}, and Adam leaves {left:.2g}: {reason(subject)}")


def learn(subject: Subject, optimizer: Any = None) -> tuple[float, float]:
    """The loss of the examples before and after a training on them alone."""
    task, batch = without_chance(subject.task()), subject.examples(EXAMPLES)
    task.optimizer = optimizer or task.optimizer

    @torch.no_grad()
    def loss() -> float:
        return float(task.train().loss(task(batch[0]), batch[1]))

    before = loss()
    subject.fit(task, Steps(Batches(*batch, batch_size=EXAMPLES), STEPS), Settled(before))
    return before, loss()


@torch.no_grad()
def reason(subject: Subject) -> str:
    """What may keep the loss from falling."""
    scores = subject.task().eval()(subject.examples(EXAMPLES)[0])
    if scores.min() >= 0 and torch.allclose(scores.sum(1), scores.new_ones(()), atol=1e-4):
        return "the scores are probabilities already, and the loss makes a softmax of its own"
    return "the loss or a layer is wrong, or the model is too small"
