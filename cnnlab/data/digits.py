"""The handwritten digits that scikit-learn carries inside its package: real data without a download."""

import importlib.util
from pathlib import Path

import torch


class Digits:
    """Handwritten digits, 1797 images of 8x8, one channel, values 0..16; no test set of their own.

    Source: Alpaydin & Kaynak 1998, the test part of UCI's Optical Recognition of Handwritten Digits.
    Shape: images (1797, 1, 8, 8), labels (1797,).

    >>> (images, labels), test = Digits().load()
    >>> images.shape, images.max().item(), labels[:5].tolist(), test
    (torch.Size([1797, 1, 8, 8]), 16, [0, 1, 2, 3, 4], None)
    """

    class_names = tuple("0123456789")

    def files(self) -> list[Path]:
        package = importlib.util.find_spec("sklearn")  # where it lies: its import takes half a second
        if package is None or package.origin is None:
            return []
        return [Path(package.origin).with_name("datasets") / "data" / "digits.csv.gz"]

    def load(self) -> tuple[tuple[torch.Tensor, torch.Tensor], None]:
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = torch.from_numpy(digits.images).to(torch.uint8).unsqueeze(1)  # (N, 8, 8) -> (N, 1, 8, 8)
        return (images, torch.from_numpy(digits.target).long()), None
