"""Symmetry: filters that are equal get equal gradients, and stay equal for ever."""

from cnnlab.check.finding import Finding, skipped
from cnnlab.check.subject import Subject


def check(subject: Subject) -> Finding:
    """The filters of a layer differ from each other once it is trained.

    Source: CS231n, "Pitfall: all zero initialization".
    """
    if not subject.trainable:
        return skipped("no parameter is trained")
    weights = {name: subject.warm[0].get_parameter(name).detach() for name in subject.trainable}
    layers = {
        name: w.flatten(1) for name, w in weights.items() if w.dim() > 1 and min(len(w), w[0].numel()) > 1
    }
    if not layers:
        return skipped("no layer has several filters")
    same = [name for name, filters in layers.items() if bool((filters == filters[0]).all())]
    figure, words = (
        f"{len(same)} of {len(layers)}",
        f"layers have equal filters after {subject.warm_up} steps",
    )
    if not same:
        return Finding("pass", figure, words)
    why = "began with equal weights (0?), so they get one gradient and remain one filter; draw them at random"
    return Finding("fail", figure, f"{words}: those of {same[0]} {why}")
