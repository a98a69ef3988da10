"""The loss of the untrained network, against what theory says of scores near 0."""

import math

import torch
from torch import nn

from cnnlab.check.finding import Finding, skipped
from cnnlab.check.subject import Subject

EXAMPLES = 500


@torch.no_grad()
def check(subject: Subject) -> Finding:
    """The untrained loss is what theory says: ln C for softmax, (C - 1) * margin for hinge.

    Source: CS231n, "Look for correct loss at chance performance".
    """
    if not subject.trainable:
        return skipped("no parameter is trained")
    task, count = subject.task().eval(), subject.data.classes
    if hasattr(task.loss, "at_random"):
        expected = task.loss.at_random(count)
    else:
        expected = math.log(count) if isinstance(task.loss, nn.CrossEntropyLoss) else None
    if not expected:
        return skipped(f"theory has nothing to say about {type(task.loss).__name__}")
    images, targets = subject.examples(EXAMPLES)
    found = float(task.loss(task(images), targets))
    figure, ratio = f"{found:.3g}", found / expected
    if 0.9 <= ratio <= 1.1:
        return Finding("pass", figure, f"theory says {expected:.3g}")
    if 0.9 <= ratio <= 2:
        return Finding("warn", figure, f"theory says {expected:.3g}: the untrained scores are rather large")
    why = "inputs or initial weights are too large" if ratio > 2 else "the loss is not what it is called"
    return Finding("fail", figure, f"theory says {expected:.3g}: {why}")
