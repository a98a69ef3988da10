"""Gradients begin at zero in every step."""

import copy
import types

import torch

from cnnlab.check.finding import Finding, grade, skipped
from cnnlab.check.subject import Subject
from cnnlab.randomness import StepSeed


def check(subject: Subject) -> Finding:
    """A step's gradient is that of its own batch: nothing is left of the steps before.

    The gradient that the optimiser was given in the last step of a warm-up, against that of the same weights
    and batch, computed on its own.
    """
    if not subject.trainable:
        return skipped("no parameter is trained")
    task, watch = copy.deepcopy(subject.warm[0]), subject.warm[1]
    step = watch.last
    assert step is not None
    task.load_state_dict(step.state)
    task.to(step.batch[0].device).train()
    seed = StepSeed(subject.config.tree["seed"])
    seed.on_train_batch_start(types.SimpleNamespace(current_epoch=0), task, step.batch, step.batch_idx)  # type: ignore[arg-type]
    task.training_step(step.batch, step.batch_idx).backward()
    own = torch.cat([task.get_parameter(name).grad.flatten() for name in step.gradients])
    given = torch.cat([gradient.flatten() for gradient in step.gradients.values()])
    apart = float((given - own).norm() / own.norm().clamp_min(1e-30))
    verdict = grade(apart, warn=1e-3, fail=0.1)
    words = f"apart are step {subject.warm_up}'s gradient and that of its batch alone"
    if verdict != "pass":
        words += ": are gradients zeroed between steps?"
    return Finding(verdict, f"{apart:.1g}", words)
