"""The handwritten digits that scikit-learn carries inside its package: real data without a download."""

import importlib.util
from pathlib import Path

import torch

from cnnlab.allowed import one_of

# A numeral on a display of seven segments: a at the top, then clockwise to f, g in the middle.
SEGMENTS = ("abcdef", "bc", "abdeg", "abcdg", "bcfg", "acdfg", "acdefg", "abc", "abcdefg", "abcdfg")
NAMES = {"class": tuple("0123456789"), "attributes": tuple("abcdefg"), "values": ("numeral",)}


class Digits:
    """Handwritten digits, 1797 images of 8x8, one channel, values 0..16; no test set of their own.

    `targets` may be other than the `class`: `attributes` are the segments that a seven-segment display lights
    for the numeral, `values` the numeral as a number, for regression.

    Source: Alpaydin & Kaynak 1998, the test part of UCI's Optical Recognition of Handwritten Digits.
    Licence: CC BY 4.0.
    Shape: images (1797, 1, 8, 8), labels (1797,), attributes (1797, 7), values (1797, 1).
    Raises: ValueError for other targets.

    >>> (images, labels), test = Digits().load()
    >>> images.shape, images.max().item(), labels[:5].tolist(), test
    (torch.Size([1797, 1, 8, 8]), 16, [0, 1, 2, 3, 4], None)
    >>> (_, segments), _ = Digits(targets="attributes").load()
    >>> segments[7].tolist()  # a, b and c show a 7
    [1, 1, 1, 0, 0, 0, 0]
    """

    def __init__(self, *, targets: str = "class") -> None:
        self.targets = one_of("targets", targets, NAMES)
        self.class_names = NAMES[targets]

    def files(self) -> list[Path]:
        package = importlib.util.find_spec("sklearn")  # where it lies: its import takes half a second
        if package is None or package.origin is None:
            return []
        return [Path(package.origin).with_name("datasets") / "data" / "digits.csv.gz"]

    def load(self) -> tuple[tuple[torch.Tensor, torch.Tensor], None]:
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = torch.from_numpy(digits.images).to(torch.uint8).unsqueeze(1)  # (N, 8, 8) -> (N, 1, 8, 8)
        labels = torch.from_numpy(digits.target).long()
        if self.targets == "attributes":
            lit = torch.tensor([[int(name in segments) for name in "abcdefg"] for segments in SEGMENTS])
            return (images, lit[labels]), None
        return (images, labels if self.targets == "class" else labels.float().unsqueeze(1)), None
