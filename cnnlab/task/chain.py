"""Chains of labels, one a place: read as a whole."""

from torch import Tensor

from cnnlab.task.classify import Classify


class ReadChain(Classify):
    """Label every place of a chain, by the chain that the loss decodes the scores to.

    `accuracy` is the fraction of places that are right.

    Shape: (N, C, H, W) -> scores (N, outputs), which `loss.decode` makes chains of.
    """

    def judged(self, scores: Tensor, targets: Tensor) -> Tensor:
        return (self.loss.decode(scores) == targets).float().mean(1)  # type: ignore[operator]
