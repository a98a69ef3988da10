"""Validation and test: the images as they are, twice the same."""

import copy
from typing import Any

import torch
from torch import Tensor

from cnnlab.check.finding import Finding
from cnnlab.check.subject import Subject

APART = 1e-3  # relative: how the batches are cut moves the last digits


def check(subject: Subject) -> Finding:
    """Validation and test see the images as they are: no augmentation, no dropout, no chance.

    The loss that the Trainer finds, twice, is that of the network on preprocessed images.
    """
    task = copy.deepcopy(subject.warm[0] if subject.trainable else subject.untrained)
    parts = {"validate": ("val/loss", subject.data.val), "test": ("test/loss", subject.data.test)}
    furthest = 0.0
    for part, (metric, examples) in parts.items():
        plain = plain_loss(task, examples, subject.data.batch_size)
        for seed in range(2):
            torch.manual_seed(seed)
            found = subject.measured(task, part)[metric]
            apart = abs(found - plain) / max(abs(plain), 1e-6)
            if not apart <= APART:
                words = f"is {metric}, but that of the images as they are is {plain:.4g}"
                return Finding("fail", f"{found:.4g}", f"{words}: augmentation or dropout is still on")
            furthest = max(furthest, apart)
    return Finding(
        "pass", f"{furthest:.0e}", "apart are val/loss, test/loss and those of the images as they are"
    )


@torch.no_grad()
def plain_loss(task: Any, examples: tuple[Tensor, Tensor], batch_size: int) -> float:
    """The mean loss of the network on preprocessed images, and nothing else."""
    task.eval()
    losses = []
    for images, targets in zip(*(tensor.split(batch_size) for tensor in examples), strict=True):
        pixels = task.preprocessing(images).to(task.dtype, memory_format=torch.channels_last)
        losses.append(float(task.loss(task.net(pixels), targets)) * len(targets))
    return sum(losses) / len(examples[1])
