"""Regression: the scores are the values."""

from torch import Tensor

from cnnlab.conv.precision import wide
from cnnlab.task.classify import Classify


class Regress(Classify):
    """Predict the values of images.

    `rmse` is the root of the squared error's mean over images and values, in the values' own unit. Without an
    accuracy the best epoch is that of the lowest val/loss.

    Shape: (N, C, H, W) -> values (N, outputs).
    """

    metric = "rmse"

    def judged(self, scores: Tensor, targets: Tensor) -> Tensor:
        return (wide(scores) - targets).square().mean(1)

    def means(self, stage: str) -> dict[str, Tensor]:
        means = super().means(stage)
        return means | {f"{stage}/rmse": means[f"{stage}/rmse"].sqrt()}
