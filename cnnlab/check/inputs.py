"""Inputs: the pixels that enter the network are of the order of 1, and around 0."""

import torch

from cnnlab.check.finding import Finding
from cnnlab.check.subject import Subject

EXAMPLES = 1000


@torch.no_grad()
def check(subject: Subject) -> Finding:
    """What enters the network is normalised: mean near 0 and deviation near 1, or a range of 0..1.

    Source: CS231n, "Data preprocessing".
    """
    inputs = subject.untrained.preprocessing(subject.examples(EXAMPLES)[0]).float()
    mean, std = float(inputs.mean()), float(inputs.std(correction=0))
    figure, words = f"{mean:.2g} ± {std:.2g}", "mean and deviation of the inputs"
    if not std > 0:
        return Finding("fail", figure, f"{words}: they are constant or not finite")
    if abs(mean) <= 1 and 0.1 <= std <= 3:
        return Finding("pass", figure, words)
    if abs(mean) + std < 5 or abs(mean) < 0.1 * std:
        return Finding("warn", figure, f"{words}: a scale of 1 learns better; preprocessing=standardize")
    return Finding("fail", figure, f"{words}: raw pixels; preprocessing=standardize")
