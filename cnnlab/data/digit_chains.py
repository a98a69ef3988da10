"""Handwritten digits side by side, whose numerals follow each other by a rule: chains to read as a whole."""

import numpy as np
import torch

from cnnlab.allowed import whole
from cnnlab.data.digits import Digits

FOLLOWS = 0.7  # how often the next numeral does


class DigitChains:
    """Handwritten digits side by side, each of which its neighbour helps to read; no test set of their own.

    A numeral is followed by the next one (9 by 0) in 70 % of cases, else by any other with equal chance: a
    Markov chain, whose draw is always the same. Every digit of `dataset=digits` is in one image at most, so
    that no part of the data has seen those of another; the draw ends where a numeral is used up, after about
    nine tenths of them.

    Source: made of Alpaydin & Kaynak 1998, the test part of UCI's Optical Recognition of Handwritten Digits.
    Licence: CC BY 4.0.
    Shape: images (N, 1, 8, 8 * length), labels (N, length); N = 393 for a length of 4.
    Raises: ValueError for a length that is not a whole number from 2 to 64.

    >>> (images, labels), test = DigitChains(length=3).load()
    >>> images.shape[1:], labels.shape[1:], test
    (torch.Size([1, 8, 24]), torch.Size([3]), None)
    """

    targets = "chain"
    class_names = Digits().class_names

    def __init__(self, *, length: int = 4) -> None:
        self.length = whole("length", length, at_least=2, at_most=64)

    def load(self) -> tuple[tuple[torch.Tensor, torch.Tensor], None]:
        (images, labels), _ = Digits().load()
        unused = [(labels == label).nonzero().flatten().tolist()[::-1] for label in range(10)]
        # Raw output of a bit generator: NumPy promises it will never change, on any platform.
        draws = np.random.PCG64(0).random_raw((len(images), self.length)) / 2**64
        chains = []
        for first, *others in draws.tolist():
            chain = [int(first * 10)]
            for draw in others:
                # The next numeral, or by an equal share of the rest one of those 2 to 10 further.
                step = 1 if draw < FOLLOWS else 2 + int((draw - FOLLOWS) / (1 - FOLLOWS) * 9)
                chain.append((chain[-1] + step) % 10)
            if any(chain.count(label) > len(unused[label]) for label in chain):
                break
            chains.append([unused[label].pop() for label in chain])
        index = torch.tensor(chains)  # (N, length), of digits
        return (images[index].transpose(1, 2).transpose(2, 3).flatten(3), labels[index]), None
