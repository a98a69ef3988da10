"""Regularisation: every penalty that has a weight raises the loss."""

import copy
from dataclasses import replace
from typing import Any

import torch

from cnnlab.check.finding import Finding, skipped
from cnnlab.check.subject import Subject
from cnnlab.refusals import build

EXAMPLES = 20


def check(subject: Subject) -> Finding:
    """More regularisation raises the loss.

    Source: CS231n, "Sanity checks".
    """
    if not subject.trainable:
        return skipped("no parameter is trained")
    task = copy.deepcopy(subject.warm[0]).double().train()
    lots = torch.Generator().manual_seed(0)
    for weights in task.parameters():  # a penalty may be at its least, as that of orthogonal filters
        weights.data += 0.1 * torch.randn(weights.shape, generator=lots).to(weights)
    rises = {knob: rise(subject, task, knob) for knob in task.regularizer.terms(task.net)}
    if not rises:
        return skipped("no penalty has a weight")
    least = min(rises, key=rises.__getitem__)
    figure = f"{rises[least]:+.2g}"
    if rises[least] > 0:
        return Finding("pass", figure, f"is the change of the loss with regularizer.{least} doubled")
    return Finding(
        "fail",
        figure,
        f"is the change of the loss with regularizer.{least} doubled: it penalises nothing here",
    )


@torch.no_grad()
def rise(subject: Subject, task: Any, knob: str) -> float:
    """How much more the loss of a training step is with a weight doubled."""
    batch, node, losses = subject.examples(EXAMPLES), subject.config.tree["regularizer"], []
    for factor in (1, 2):
        tree = subject.config.tree | {"regularizer": node | {knob: factor * node[knob]}}
        task.regularizer = build(replace(subject.config, tree=tree), ("regularizer",))
        torch.manual_seed(0)  # the same dropout and augmentation both times
        losses.append(float(task.training_step(batch, 0)))
    return losses[1] - losses[0]
