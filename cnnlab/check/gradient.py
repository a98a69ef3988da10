"""Gradient check: backpropagation against centred differences, in float64."""

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cnnlab.check.finding import Finding, Verdict, skipped
from cnnlab.check.subject import Subject, without_chance

EXAMPLES = 3  # few, since each brings kinks of its own
COORDINATES = 2  # of every parameter where its gradient is steepest, and as many drawn
STEPS = (1e-5, 1e-4, 1e-6)  # the first is right for most; the others where it is not
GOOD, KINKED, WRONG = 1e-7, 1e-4, 1e-2  # relative errors: of a smooth loss, of one with kinks, of a mistake
EPSILON = 2.3e-16  # of float64


class Difference(NamedTuple):
    """Backpropagation's and the centred differences' derivative at one coordinate."""

    name: str
    backward: float
    centred: float
    error: float
    kink: bool = False  # the two one-sided differences disagree, and the gradient lies between them


def check(subject: Subject) -> Finding:
    """The gradient of backpropagation is that of centred differences.

    Error |a - n| / max(|a|, |n|) at some coordinates of every parameter, after a warm-up; the loss and the
    penalty each for itself, without dropout and augmentation, batch norm in eval mode.

    Source: CS231n, "Gradient checks".
    """
    if not subject.trainable:
        return skipped("no parameter is trained")
    task = copy.deepcopy(subject.warm[0]).double().eval()
    images, targets = subject.examples(EXAMPLES)
    targets = targets.roll(1, 0)  # of another example: where all is learnt the loss is flat
    penalty = task.regularizer
    without_chance(task)
    found = differences(
        task, lambda: task.training_step((images, targets), 0), lambda: task.loss(task(images), targets)
    )
    if isinstance(penalty(task.net), Tensor):
        found += differences(task, lambda: penalty(task.net), lambda: penalty(task.net))
    kinks = sum(each.kink for each in found)
    judged = [each for each in found if not each.kink]
    if not judged:
        return Finding("warn", "", f"all {kinks} coordinates are at kinks: nothing can be compared")
    worst = max(judged, key=lambda each: each.error)
    limit = KINKED if kinks else GOOD
    verdict: Verdict = "pass" if worst.error <= limit else "warn" if worst.error <= WRONG else "fail"
    words = f"at {len(judged)} coordinates of {len(subject.trainable)} parameters"
    if kinks:
        words += f", {kinks} at kinks not counted"
    if verdict != "pass":
        words += f"; worst {worst.name}: backward {worst.backward:.4g}, differences {worst.centred:.4g}"
    if verdict == "fail":
        words += ". A backward pass is wrong, or what it calls the loss is not the loss"
    return Finding(verdict, f"{worst.error:.0e}", words)


def differences(task: Any, backward: Callable[[], Tensor], value: Callable[[], Tensor]) -> list[Difference]:
    """Compare the gradient of one function with differences of another, which should be the same."""
    parameters = {name: p for name, p in task.named_parameters() if p.requires_grad}
    loss = backward()
    gradients: Sequence[Tensor | None] = [None] * len(parameters)
    if loss.requires_grad:
        gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    lots, found = torch.Generator().manual_seed(0), []
    for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True):
        flat = (torch.zeros_like(parameter) if gradient is None else gradient).flatten()
        steepest = flat.abs().topk(min(COORDINATES, len(flat))).indices
        drawn = torch.randint(len(flat), (COORDINATES,), generator=lots)
        for index in torch.cat([steepest, drawn]).unique():
            where = tuple(int(i) for i in torch.unravel_index(index, parameter.shape))
            found.append(difference(name, parameter, where, float(flat[index]), value))
    return found


@torch.no_grad()
def difference(
    name: str, parameter: Tensor, where: tuple[int, ...], backward: float, value: Callable[[], Tensor]
) -> Difference:
    old, middle = parameter[where].clone(), float(value())
    best = Difference(name, backward, 0.0, float("inf"))
    for h in STEPS:
        sides = []
        for step in (-h, h):
            parameter[where] = old + step
            sides.append(float(value()))
        low, high = sides
        centred = (high - low) / (2 * h)
        # Below this no difference can be exact to GOOD: the loss itself is rounded.
        floor = EPSILON * abs(middle) / h / GOOD
        error = abs(backward - centred) / max(abs(backward), abs(centred), floor, 1e-10)
        best = min(best, Difference(name, backward, centred, error), key=lambda each: each.error)
        if error <= GOOD:
            break
    parameter[where] = old
    # The smallest step decides: over a larger one mere curvature looks like a kink.
    gap = abs((high - middle) - (middle - low)) / h
    return best._replace(kink=best.error > GOOD and abs(backward - centred) <= gap)
