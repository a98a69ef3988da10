"""Decoders: what a chain of labels scores, and which chain scores best."""

import torch
from torch import Tensor, nn


class IndependentDecoder(nn.Module):
    """Chains whose places know nothing of each other: sum_t u_t(y_t).

    Shape: unary scores (N, L, K), labels (N, L)
    """

    def __init__(self, labels: int) -> None:
        super().__init__()

    def score(self, unary: Tensor, labels: Tensor) -> Tensor:
        """Of each chain of labels, (N,)."""
        return unary.gather(2, labels.unsqueeze(2)).sum((1, 2))

    @torch.no_grad()
    def decode(self, unary: Tensor) -> Tensor:
        """The chain that scores best, (N, L)."""
        return unary.argmax(2)


class ChainDecoder(IndependentDecoder):
    """Chains whose neighbours matter: sum_t u_t(y_t) + sum_t A[y_t, y_t+1], with A learned from 0.

    The best of all K^L chains is found in L K^2 steps.

    Source: Viterbi 1967, Error bounds for convolutional codes and an asymptotically optimum decoding
        algorithm.
    Shape: unary scores (N, L, K), labels (N, L)

    >>> decoder = ChainDecoder(2)
    >>> decoder.transitions.data = torch.tensor([[0.0, 3.0], [0.0, 0.0]])
    >>> unary = torch.tensor([[[2.0, 0.0], [1.0, 0.0]]])
    >>> decoder.decode(unary)  # 0 0 scores 2 + 0 + 1, 0 1 scores 2 + 3 + 0
    tensor([[0, 1]])
    >>> decoder.score(unary, torch.tensor([[0, 1]])).item()
    5.0
    """

    def __init__(self, labels: int) -> None:
        super().__init__(labels)
        self.transitions = nn.Parameter(torch.zeros(labels, labels))

    def score(self, unary: Tensor, labels: Tensor) -> Tensor:
        return super().score(unary, labels) + self.transitions[labels[:, :-1], labels[:, 1:]].sum(1)

    @torch.no_grad()
    def decode(self, unary: Tensor) -> Tensor:
        best = unary[:, 0]  # (N, K), of the chains that end here, by their last label
        came_from = []
        for scores in unary.unbind(1)[1:]:
            before, origin = (best.unsqueeze(2) + self.transitions).max(1)  # (N, from, to) -> (N, to)
            best = before + scores
            came_from.append(origin)
        chain = [best.argmax(1)]
        for origin in reversed(came_from):
            chain.append(origin.gather(1, chain[-1].unsqueeze(1)).squeeze(1))
        return torch.stack(chain[::-1], 1)
