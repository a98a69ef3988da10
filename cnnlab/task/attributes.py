"""Attributes of images: each is there or not."""

from torch import Tensor

from cnnlab.task.classify import Classify


class FindAttributes(Classify):
    """Say of each attribute whether an image has it: where its score is above 0.

    `accuracy` is the fraction of attributes that are right.

    Shape: (N, C, H, W) -> scores (N, attributes).
    """

    def judged(self, scores: Tensor, targets: Tensor) -> Tensor:
        return ((scores > 0) == (targets > 0)).float().mean(1)
