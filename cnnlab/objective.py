"""Configuration -> the loss that was chosen, ready for the targets that the data have."""

from typing import Any

from torch import nn

from cnnlab.allowed import RequestError
from cnnlab.config import Config
from cnnlab.data.targets import KINDS
from cnnlab.refusals import build, refusals
from cnnlab.registry import available, locate, node


def build_loss(config: Config, classes: int, targets: str, structure: dict[str, Any]) -> nn.Module:
    """The loss of a configuration, prepared for so many classes, attributes, values or labels of a chain.

    Raises: RequestError where it judges other targets; a loss that does not say what it judges may try.
    """
    loss: nn.Module = build(config, ("loss",))
    judges = getattr(loss, "targets", targets)
    if judges != targets:
        data = config.says("dataset", "targets" if "targets" in config.tree["dataset"] else None)
        fit = [word for word in available("loss") if judged_by(word) == targets]
        raise RequestError(
            f"{config.says('loss')}: takes {KINDS.get(judges, judges)}, {data} has {KINDS[targets]}; "
            f"there {'is' if len(fit) == 1 else 'are'} loss={', '.join(fit)}"
        )
    if hasattr(loss, "prepare"):
        with refusals(config, "loss"):
            loss.prepare(classes, **structure)  # type: ignore[operator]
    return loss


def judged_by(word: str) -> str | None:
    """The targets that a loss of conf/loss judges."""
    return getattr(locate(node("loss", word)["_target_"]), "targets", None)


def outputs(loss: nn.Module, classes: int) -> int:
    """The scores that a network must give to a loss."""
    return loss.outputs(classes) if hasattr(loss, "outputs") else classes  # type: ignore[operator]
