"""Street View House Numbers, cropped digits, in the .mat files of its authors."""

from pathlib import Path

import numpy as np
import torch

from cnnlab.allowed import truth
from cnnlab.data.download import Remote, check, fetch, home, located

MIRRORS = ("http://ufldl.stanford.edu/housenumbers/",)

Examples = tuple[torch.Tensor, torch.Tensor]


class SVHN:
    """House numbers in photographs, 73,257 + 26,032 images of 32x32, three channels, 10 digits.

    `root` is the folder of train_32x32.mat and test_32x32.mat; without it ~/.local/share/datasets/svhn, to
    which both (246 MB) are downloaded if `download`.

    Source: Netzer et al. 2011, Reading Digits in Natural Images with Unsupervised Feature Learning.
    Licence: for non-commercial use only.
    Shape: images (73257, 3, 32, 32) and (26032, 3, 32, 32), labels (73257,) and (26032,).
    Raises: FileNotFoundError where a file is missing, ValueError where one is damaged.
    """

    remotes = (
        Remote("train_32x32.mat", "e26dedcc434d2e4c54c9b2d4a06d8373", MIRRORS),
        Remote("test_32x32.mat", "eb5a983be6a315427106f1b164d9cef3", MIRRORS),
    )
    class_names = tuple("0123456789")

    def __init__(self, *, root: str | None = None, download: bool = True) -> None:
        self.root = root
        self.download = truth("download", download)

    def files(self) -> list[Path]:
        root = located(self.root, home("svhn"))
        return [fetch(remote, root, download=self.download) for remote in self.remotes]

    def load(self) -> tuple[Examples, Examples]:
        files = self.files()
        for file, remote in zip(files, self.remotes, strict=True):
            check(file, remote.md5)
        train, test = map(read_mat, files)
        return train, test


def read_mat(file: Path) -> Examples:
    """Images X (32, 32, 3, N) and labels y (N, 1) of 1..10, in which 10 stands for the digit 0."""
    from scipy.io import loadmat

    try:
        content = loadmat(file, variable_names=("X", "y"))
        pixels, labels = content["X"], np.asarray(content["y"], np.int64).ravel()
    except Exception as error:  # a damaged file raises nearly anything
        said = " ".join(str(error).split())
        raise ValueError(f"root={file.parent}: {file.name}: expected a whole .mat file: {said}") from error
    if pixels.dtype != np.uint8 or pixels.shape != (32, 32, 3, len(labels)):
        got = f"{pixels.dtype} {pixels.shape}"
        raise ValueError(f"root={file.parent}: {file.name}: expected uint8 X (32, 32, 3, N), got {got}")
    if len(labels) and not 1 <= labels.min() <= labels.max() <= 10:
        got = f"{labels.min()}..{labels.max()}"
        raise ValueError(f"root={file.parent}: {file.name}: labels must be 1..10, got {got}")
    images = np.ascontiguousarray(pixels.transpose(3, 2, 0, 1))  # (H, W, C, N) -> (N, C, H, W)
    return torch.from_numpy(images), torch.from_numpy(labels % 10)
