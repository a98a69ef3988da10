"""How far a step moves each layer, in units of its weights."""

from cnnlab.check.finding import Finding, skipped
from cnnlab.check.subject import Subject

LOW, HIGH = 1e-4, 1e-2


def check(subject: Subject) -> Finding:
    """A step changes the weights of each layer by about a thousandth.

    Source: CS231n, "Ratio of weights:updates".
    """
    if not subject.trainable:
        return skipped("no parameter is trained")
    task, watch = subject.taught
    ratios = {name: watch.ratios[name] for name in subject.trainable if task.get_parameter(name).dim() > 1}
    if not ratios:
        return skipped("no weights are trained")
    low, high = min(ratios, key=ratios.__getitem__), max(ratios, key=ratios.__getitem__)
    figure = f"{ratios[low]:.0e} to {ratios[high]:.0e}"
    words = f"of its weights change in a step after {subject.short}"
    if ratios[high] > HIGH:
        return Finding("warn", figure, f"{words}: {high} the most; optimizer.lr may be too high")
    if ratios[low] == 0:
        return Finding("warn", figure, f"{words}: {low} not at all; it has converged, or gets no gradient")
    if ratios[low] < LOW:
        return Finding("warn", figure, f"{words}: {low} the least; optimizer.lr may be too low")
    return Finding("pass", figure, words)
