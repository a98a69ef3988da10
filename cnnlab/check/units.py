"""Dead and saturated units: activations that pass no gradient on."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from cnnlab.check.finding import Finding, grade, skipped
from cnnlab.check.subject import Subject
from cnnlab.config import default_words
from cnnlab.registry import locate, node

FLAT = 0.005  # a slope below this: ReLU's 0, tanh beyond 0.9975, sigmoid beyond 0.995
IMAGES, BATCH = 1000, 100
DEAD, SATURATED = (0.2, 0.5), (0.9, 0.95)  # shares of a layer: warn, fail


class Slopes:
    """Which units of an activation have a slope on any image, and how many of all slopes are flat."""

    def __init__(self, activation: nn.Module) -> None:
        self.alive: Tensor | None = None  # (C,)
        self.flat, self.count = 0, 0
        activation.register_forward_pre_hook(self.look)

    def look(self, activation: nn.Module, inputs: tuple[Any, ...]) -> None:
        with torch.enable_grad():
            x = inputs[0].detach().requires_grad_()
            (slope,) = torch.autograd.grad(activation.forward(x.clone()).sum(), x)
        steep = slope.abs() >= FLAT  # (N, C, ...)
        alive = steep.transpose(0, 1).flatten(1).any(1)
        self.alive = alive if self.alive is None else self.alive | alive
        self.flat, self.count = self.flat + int((~steep).sum()), self.count + steep.numel()


def check(subject: Subject) -> Finding:
    """Activations pass gradients on: few units are dead, no layer is saturated.

    A unit is dead if its slope is 0 at every position of every validation image; a layer is saturated if
    nine slopes of ten are 0.

    Source: CS231n, "Activation / Gradient distributions per layer".
    """
    if not subject.trainable:
        return skipped("no parameter is trained")
    task = copy.deepcopy(subject.warm[0]).eval()
    nodes = subject.config.tree["activation"], node("activation", default_words()["activation"])
    kinds = tuple(locate(node["_target_"], subject.config.tree["trusted"]) for node in nodes)
    watched = {name: Slopes(layer) for name, layer in task.net.named_modules() if isinstance(layer, kinds)}
    with torch.no_grad():
        for images in subject.data.val[0][:IMAGES].split(BATCH):
            task(images)
    dead = {name: 1 - float(s.alive.float().mean()) for name, s in watched.items() if s.alive is not None}
    flat = {name: watched[name].flat / watched[name].count for name in dead}
    if not dead:
        return skipped("the network has no activations")
    layer, full = max(dead, key=dead.__getitem__), max(flat, key=flat.__getitem__)
    dying, saturation = (
        grade(value, warn=warn, fail=fail)
        for value, (warn, fail) in ((dead[layer], DEAD), (flat[full], SATURATED))
    )
    advice = "smaller weights, inputs or optimizer.lr may help"
    if dying == "pass" and saturation != "pass":
        words = f"of the slopes of net.{full} are 0 after {subject.warm_up} steps: it is saturated; {advice}"
        return Finding(saturation, f"{flat[full]:.0%}", words)
    words = f"of the units of net.{layer} are dead after {subject.warm_up} steps"
    if dying != "pass":
        words += f": they learn no more; {advice}"
    return Finding(dying, f"{dead[layer]:.0%}", words)
