"""Labels: they belong to their images, and a class has one number in every part."""

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from cnnlab.check.finding import Finding, skipped
from cnnlab.check.subject import Subject

REFERENCES, QUERIES = 5000, 1000


def check(subject: Subject) -> Finding:
    """Labels belong to their images, and a class has the same number in every part.

    The nearest training image, pixel by pixel, tells an image's class better than chance does; no other
    numbering of a part's classes fits much better than the given one.
    """
    if subject.data.targets != "class":
        return skipped("the targets are not classes")
    data = subject.data
    references, known = (tensor[:REFERENCES] for tensor in data.train)
    for part, examples in (("validation", data.val), ("test", data.test)):
        images, labels = (tensor[:QUERIES] for tensor in examples)
        given, renumbered = agreement(known[nearest(images, references)], labels, data.classes)
        if renumbered - given > 4 * ((renumbered + given) / max(1, len(labels) // 2)) ** 0.5:
            words = f"of {part} labels are those of the nearest training image, but {renumbered:.2f} with "
            return Finding(
                "fail", f"{given:.2f}", words + f"the classes renumbered: {part} counts them otherwise"
            )
    for part, (_, labels) in (("training", data.train), ("validation", data.val)):
        counts = labels.bincount(minlength=data.classes).tolist()
        if 0 in counts:
            absent = data.class_names[counts.index(0)]
            return Finding(
                "warn", f"{counts.count(0)}", f"of {data.classes} classes have no {part} image: {absent} ..."
            )
    guess = nearest(references[:QUERIES], references, but_itself=True)
    right = float((known[guess] == known[:QUERIES]).float().mean())
    chance = float((known.bincount() / len(known)).square().sum())
    if right > most_by_chance(chance, len(guess)):
        words = f"of labels are those of the nearest image; by chance {chance:.2f}"
        return Finding("pass", f"{right:.2f}", words)
    learnt = subject.measured(subject.taught[0], "validate")["val/accuracy"]
    if learnt > most_by_chance(float(data.val[1].bincount().max() / len(data.val[1])), len(data.val[1])):
        return Finding("pass", f"{learnt:.2f}", f"of validation is right after {subject.short} steps")
    words = (
        f"of labels are those of the nearest image, as by chance, and {subject.short} steps teach nothing:"
    )
    return Finding("fail", f"{right:.2f}", f"{words} labels and images do not belong together")


def nearest(images: Tensor, references: Tensor, *, but_itself: bool = False) -> Tensor:
    """Index of the reference that is nearest to each image; `but_itself`: image i is reference i.

    >>> pixels = torch.tensor([0, 4, 5]).view(3, 1, 1, 1)
    >>> nearest(pixels, pixels).tolist(), nearest(pixels, pixels, but_itself=True).tolist()
    ([0, 1, 2], [1, 2, 1])
    """
    x, y = images.flatten(1).float(), references.flatten(1).float()
    distance = y.square().sum(1) - 2 * x @ y.T  # but for |x|^2, the same for all references
    if but_itself:
        distance.fill_diagonal_(torch.inf)
    return distance.argmin(1)


def agreement(guesses: Tensor, labels: Tensor, classes: int) -> tuple[float, float]:
    """How many guesses are right, as the classes are numbered and in the numbering that fits best.

    That numbering is found on one half and judged on the other, so that none fits by chance.

    >>> agreement(torch.tensor([0, 1, 2, 1, 0, 2]), torch.tensor([1, 2, 0, 2, 1, 0]), 3)
    (0.0, 1.0)
    """
    half = len(labels) // 2
    counts = torch.zeros(classes, classes)
    counts.index_put_((guesses[:half].cpu(), labels[:half].cpu()), torch.ones(half), accumulate=True)
    _, numbers = linear_sum_assignment(counts.numpy(), maximize=True)
    renumbered = torch.as_tensor(numbers).to(guesses.device)[guesses]
    return tuple(float((g == labels)[half:].float().mean()) for g in (guesses, renumbered))  # type: ignore[return-value]


def most_by_chance(chance: float, count: int) -> float:
    """The share of `count` answers that chance hardly ever gets right: three standard deviations above."""
    return chance + 3 * (chance * (1 - chance) / count) ** 0.5
