"""Labels dealt out anew: who still beats chance has seen the answers."""

import torch
from torch import Tensor

from cnnlab.check.finding import Finding, skipped
from cnnlab.check.subject import Subject


def check(subject: Subject) -> Finding:
    """With shuffled labels nothing is learnt: accuracy on validation is that of chance.

    Source: Zhang et al. 2017, arXiv:1611.03530, for the experiment.
    """
    if not subject.trainable or subject.data.targets != "class":
        return skipped("only for classifiers that are trained")
    task, _ = subject.trained(subject.short, dealt_out(subject.data.train[1], subject.data.classes))
    found = subject.measured(task, "validate")["val/accuracy"]
    labels = subject.data.val[1]
    chance = float(labels.bincount().max() / len(labels))
    words = f"accuracy after {subject.short} steps on shuffled labels, chance is {chance:.2f}"
    if found <= chance + 4 * (chance * (1 - chance) / len(labels)) ** 0.5:
        return Finding("pass", f"{found:.3f}", words)
    why = "validation's answers are known to the model, or accuracy is not what it is called"
    return Finding("fail", f"{found:.3f}", f"{words}: {why}")


def dealt_out(labels: Tensor, classes: int) -> Tensor:
    """Labels that say nothing: the images of each class get all classes in equal shares, by lot.

    A mere permutation would leave each class a favourite, and so an accuracy far from chance on few images.

    >>> dealt_out(torch.tensor([0, 0, 1, 1]), 2).view(2, 2).sum(1).tolist()
    [1, 1]
    """
    lots = torch.rand(len(labels), generator=torch.Generator().manual_seed(0)).to(labels.device)
    order = (labels + lots).argsort()  # class by class, by lot within
    dealt = torch.empty_like(labels)
    dealt[order] = torch.arange(len(labels), device=labels.device) % classes
    return dealt
