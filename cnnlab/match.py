"""Fair comparison: the model's width at which a variant costs what conv=standard costs."""

import contextlib
import logging
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from cnnlab.allowed import RequestError
from cnnlab.config import Config
from cnnlab.network import build_net, with_default_parts

log = logging.getLogger("cnnlab")

CLOSE = 0.005  # relative distance from the budget that is near enough
FAR = 0.05  # ... that is worth a warning
WIDEST = 2**6  # times the asked width, and as much narrower, is searched
HALVINGS = 12
NEIGHBOURS = 24  # widths tried on either side of the crossing, each CLOSE / 2 further


class Match(NamedTuple):
    """The width that was chosen, what it costs, and what it should."""

    width: float
    cost: int
    budget: int


class Trial(NamedTuple):
    """What a width costs."""

    width: float
    cost: int
    groups: tuple[int, ...]  # of each convolution


def matched(config: Config, input_shape: tuple[int, ...], classes: int) -> Match:
    """The `model.width` at which the configuration costs what conv=standard costs; warns where none is near.

    `match=params` or `match=macs` names the cost. The budget is that of the same model, as wide as asked for,
    with the default convolution, activation and pooling. It is met as nearly as whole channels allow; widths
    at which a convolution would have other groups (gcd of groups and channels) come last.

    Raises: RequestError where the model has no width.
    """
    import torch

    from cnnlab import conv, cost

    key = config.tree["match"]
    asked = config.tree["model"].get("width")
    if asked is None:
        raise RequestError(f"match={key}: {config.says('model')} has no width to solve for")

    def trial(width: float, config: Config = config) -> Trial:
        width = float(f"{width:.4g}")  # as one would type it: the typed width must build the same network
        with torch.device("meta"):  # sizes without values
            net = build_net(config, input_shape, classes, width=width)
            spent = cost.parameters(net) if key == "params" else cost.macs(net, input_shape)
        return Trial(width, spent, tuple(getattr(layer, "groups", 1) for layer in conv.layers(net).values()))

    first, budget = trial(asked), max(1, trial(asked, with_default_parts(config)).cost)

    def badness(trial: Trial) -> Any:
        return trial.groups != first.groups, abs(math.log(max(1, trial.cost) / budget))

    def trials_around(width: float, steps: range) -> Iterator[Trial]:
        for step in steps:
            with contextlib.suppress(RequestError):  # a number of channels that a part refuses
                yield trial(width * (1 + CLOSE / 2 * step))

    trials = [first]
    if badness(first)[1] > CLOSE:
        low, high = asked / WIDEST, asked * WIDEST
        for _ in range(HALVINGS):
            middle = next(trials_around(math.sqrt(low * high), range(NEIGHBOURS)), first)
            trials.append(middle)
            low, high = (middle.width, high) if middle.cost < budget else (low, middle.width)
        if badness(min(trials, key=badness))[1] > CLOSE:
            trials += trials_around(low, range(-NEIGHBOURS, NEIGHBOURS + 1))
    best = min(trials, key=badness)
    deviation = best.cost / budget - 1
    if abs(deviation) > FAR:
        says = (
            f"match={key}: the nearest is model.width={best.width:g}, with {best.cost:,} of {budget:,} {key}"
        )
        log.warning("%s (%+.0f %%)", says, 100 * deviation)
    return Match(best.width, best.cost, budget)
