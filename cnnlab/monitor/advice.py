"""What a run's history says in plain words: what is wrong with it, and what one would try."""

import math
from collections.abc import Sequence

from cnnlab.history import Row

GAP, SMALL_GAP = 0.1, 0.02  # train minus validation accuracy
LEARNT = 0.99  # a training accuracy that leaves nothing to learn
WORSE = 1.1  # times its least value: a loss that has risen

# Figure of a layer, the range in which it is judged, and what is said then.
JUDGED = (
    ("update_ratio", 1e-2, math.inf, "updates are above 0.01 of the weights: a lower learning rate"),
    ("update_ratio", -1, 1e-4, "updates are below 0.0001 of the weights: a higher learning rate"),
    ("dead", 0.5, math.inf, "most units give one output for all images: another initializer, or slower"),
    (
        "saturated",
        0.5,
        math.inf,
        "most outputs are at a bound: smaller initial weights, another activation",
    ),
    ("near_zero", 0.5, math.inf, "most weights are near zero: the layer is larger than it need be"),
)


def advice(rows: Sequence[Row]) -> list[str]:
    """Lines of advice; none where there is nothing to say.

    >>> losses = {"train/loss": 1.4, "val/loss": 1.4}
    >>> advice([{"step": 9, "epoch": 1, "train/accuracy": 0.5, "val/accuracy": 0.49, **losses}])[0]
    'underfitting: accuracy is 0.500 on train, 0.490 on validation: a larger model, or another learning rate'
    """
    epochs = [row for row in rows if "val/loss" in row and "train/loss" in row]
    return [*_fit(epochs), *_layers(rows)]


def _fit(epochs: Sequence[Row]) -> list[str]:
    if not epochs:
        return []
    last = epochs[-1]
    best = min(epochs, key=lambda row: row["val/loss"])
    cure = "regularise more, augment, or find more data"
    if last["val/loss"] > WORSE * best["val/loss"] and last["train/loss"] < best["train/loss"]:
        then, now = best["val/loss"], last["val/loss"]
        since = f"since epoch {best['epoch']:g} val/loss rose from {then:.3g} to {now:.3g}"
        return [f"overfitting: {since} while train/loss fell: stop there, {cure}"]
    if "train/accuracy" not in last or "val/accuracy" not in last:
        return []
    train, val = last["train/accuracy"], last["val/accuracy"]
    said = f"accuracy is {train:.3f} on train, {val:.3f} on validation"
    if train - val > GAP:
        return [f"overfitting: {said}: {cure}"]
    if train - val < SMALL_GAP and train < LEARNT:
        if len(epochs) > 1 and best is last:
            return [f"unfinished: {said}, and val/loss still falls: train longer, or faster"]
        return [f"underfitting: {said}: a larger model, or another learning rate"]
    return []


def _layers(rows: Sequence[Row]) -> list[str]:
    """What the last figures of the layers say."""
    last = {key: value for row in rows for key, value in row.items()}
    lines = []
    for kind, least, most, said in JUDGED:
        found = {key.partition("/")[2]: value for key, value in last.items() if key.startswith(f"{kind}/")}
        layers = [f"{name} ({value:.2g})" for name, value in found.items() if least < value < most]
        if layers:
            lines.append(f"{', '.join(layers)}: {said}")
    return lines
