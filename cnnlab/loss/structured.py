from collections.abc import Callable
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from cnnlab.allowed import one_of
from cnnlab.conv.precision import wide
from cnnlab.loss.decoder import ChainDecoder, IndependentDecoder

DECODERS: dict[str, Callable[[int], IndependentDecoder]] = {
    "chain": ChainDecoder,
    "independent": IndependentDecoder,
}


class StructuredHingeLoss(nn.Module):
    """Structured SVM: every chain of labels must score as far below the right one as it is wrong.

    The batch's mean of max_y' [H(y', y) + s(y')] - s(y), H the number of wrong labels (Hamming) and s the
    decoder's score of a chain, which also finds the y' of the maximum: H only adds 1 to the score of every
    wrong label at its place. `chain` learns a score for each pair of neighbours, `independent` has none; in
    Python any class will do whose modules, made for a number of labels, `score` and `decode`.

    Source: Tsochantaridis et al. 2005, Large margin methods for structured and interdependent output
        variables (margin rescaling); Taskar et al. 2003, Max-margin Markov networks (Hamming).
    Shape: scores (N, L * K), chains (N, L) -> scalar
    Raises: ValueError for another decoder.

    >>> import torch
    >>> loss = StructuredHingeLoss()
    >>> loss.prepare(2, length=2)
    >>> loss(torch.tensor([[2.0, 0.0, 1.0, 0.5]]), torch.tensor([[0, 0]])).item()  # 0 1: 1 + 2.5 - 3
    0.5
    """

    targets: ClassVar[str] = "chain"

    def __init__(self, *, decoder: str | Callable[[int], IndependentDecoder] = "chain") -> None:
        super().__init__()
        self.make = decoder if callable(decoder) else DECODERS[one_of("decoder", decoder, DECODERS)]

    def prepare(self, labels: int, *, length: int) -> None:
        """Make the decoder, for chains of so many different labels."""
        self.labels, self.length = labels, length
        self.decoder = self.make(labels)

    def outputs(self, n: int) -> int:
        return self.length * self.labels

    def unary(self, scores: Tensor) -> Tensor:
        """(N, L * K) -> (N, L, K)."""
        return wide(scores).unflatten(1, (self.length, self.labels))

    def forward(self, scores: Tensor, targets: Tensor) -> Tensor:
        unary = self.unary(scores)
        wrong = 1 - F.one_hot(targets, self.labels)
        rival = self.decoder.decode(unary.detach() + wrong)
        margin = (rival != targets).sum(1)
        return (margin + self.decoder.score(unary, rival) - self.decoder.score(unary, targets)).mean()

    def decode(self, scores: Tensor) -> Tensor:
        """The best chains, (N, L)."""
        return self.decoder.decode(self.unary(scores))

    def at_random(self, n: int) -> float:
        return float(self.length) if n > 1 else 0.0
