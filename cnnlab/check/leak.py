"""Leaks: what validation and test are to tell must not be known from training."""

import hashlib

import torch
from torch import Tensor

from cnnlab.check.finding import Finding, grade
from cnnlab.check.subject import Subject
from cnnlab.data.preprocessing import chunks
from cnnlab.refusals import build

MOST = 0.01  # of a part: real data sets have a few images twice


def check(subject: Subject) -> Finding:
    """No image is in two parts, and preprocessing is fitted on the training part alone."""
    data = subject.data
    fitted = build(subject.config, ("preprocessing",)).fit(data.train[0]).state_dict()
    own = subject.untrained.preprocessing.state_dict()
    for name, statistic in fitted.items():
        if not torch.equal(statistic, own[name]):
            words = "of preprocessing is not that of the training part: it knows other images"
            return Finding("fail", name, words)
    train, validation, test = (digests(images) for images, _ in (data.train, data.val, data.test))
    known = set(train)
    before = known | set(validation)
    leaks = {
        "validation": sum(digest in known for digest in validation) / len(validation),
        "test": sum(digest in before for digest in test) / len(test),
    }
    part = max(leaks, key=leaks.__getitem__)
    verdict = grade(leaks[part], warn=0, fail=MOST)
    figure = f"{leaks[part]:.2%}"
    if verdict == "pass":
        return Finding(verdict, figure, "of validation and test images are known from before")
    words = f"of {part} images are in an earlier part too"
    if verdict == "warn":
        return Finding(verdict, figure, f"{words}: a few twins, as data sets have them")
    return Finding(verdict, figure, f"{words}: the split leaks, and accuracy will be too good")


def digests(images: Tensor) -> list[bytes]:
    """A hash of each image."""
    return [
        hashlib.blake2b(image.numpy().tobytes(), digest_size=16).digest()
        for chunk in chunks(images)
        for image in chunk.cpu()
    ]
