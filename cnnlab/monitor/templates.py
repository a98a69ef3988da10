"""What a network sees of images, and what a linear classifier compares them with, as pictures."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cnnlab.model.linear import LinearClassifier
from cnnlab.monitor.filters import filter_grid

if TYPE_CHECKING:
    from cnnlab.task.classify import Classify

IMAGES = 8


@torch.no_grad()
def preprocessed(task: "Classify", images: Tensor) -> np.ndarray:
    """The first images in a row, and below each what preprocessing makes of it, scaled to its own range."""
    images = images[:IMAGES]
    both = torch.cat([images.float(), task.preprocessing(images)])
    return filter_grid(both, columns=len(images))


def templates(task: "Classify", images: Tensor) -> np.ndarray:
    """The templates of a linear classifier, in the order of the classes, each scaled to its own range.

    A template is the gradient of its class's score by the pixels, through preprocessing: the image that other
    images are compared with by their inner product. It is the same at any image.
    """
    gradients = torch.autograd.functional.jacobian(lambda x: task(x)[0], images[:1].float())
    return filter_grid(gradients[:, 0])  # (outputs, 1, C, H, W)


def pictures(task: "Classify", images: Tensor) -> dict[str, np.ndarray]:
    """The pictures of a trained classifier by name."""
    images = images[:IMAGES].to(task.device)
    named = {"preprocessing": preprocessed(task, images)}
    if isinstance(task.net, LinearClassifier):
        named["templates"] = templates(task, images)
    return named


def write(folder: Path, task: "Classify", images: Tensor) -> None:
    """The pictures as PNG files in a run's folder."""
    for name, grid in pictures(task, images).items():
        Image.fromarray(grid).save(folder / f"{name}.png")
