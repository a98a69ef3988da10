"""Frozen layers: what is to be trained gets a gradient and moves."""

from cnnlab.check.finding import Finding, skipped
from cnnlab.check.subject import Subject
from cnnlab.refusals import build

SLIGHT = 1e-6  # a gradient whose step rounding may swallow, as of a bias before a batch norm


def check(subject: Subject) -> Finding:
    """Every parameter gets a gradient and moves, but for those that their convolution fixes on purpose."""
    names = [name for name, _ in subject.untrained.named_parameters()]
    if not names:
        return skipped("there are no parameters")
    fixed = [name for name in names if name not in subject.trainable]
    purpose = on_purpose(subject) if fixed else set()
    for name in fixed:
        if name not in purpose:
            return Finding("fail", name, "has requires_grad=False, and nothing in the configuration says so")
    if subject.trainable:
        watch = subject.warm[1]
        for name in subject.trainable:
            steepest = float(watch.steepest.get(name, 0.0))
            if steepest == 0:
                words = f"gets no gradient in {subject.warm_up} steps: is it used, or detached?"
                return Finding("fail", name, words)
            if name not in watch.moved and steepest > SLIGHT:
                return Finding("fail", name, "has a gradient, but the optimizer does not move it")
    words = f"parameters get a gradient and move in {subject.warm_up} steps"
    if fixed:
        words += f"; the others conv={subject.config.choices['conv']} fixes on purpose"
    return Finding("pass", f"{len(subject.trainable)} of {len(names)}", words)


def on_purpose(subject: Subject) -> set[str]:
    """Names of the parameters that the chosen convolution, built on its own, does not train either."""
    fixed = set()
    for layer, conv in subject.untrained.convs.items():
        alone = build(subject.config, ("conv",), conv.in_channels, conv.out_channels, conv.kernel_size)
        fixed |= {f"net.{layer}.{name}" for name, p in alone.named_parameters() if not p.requires_grad}
    return fixed
