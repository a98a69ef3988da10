"""What L-BFGS needs that no other optimiser does: all training images at once, and one function a step."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from cnnlab.allowed import RequestError, one_of, whole
from cnnlab.config import Config
from cnnlab.refusals import build, refusals


def is_full_batch(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the optimiser compares losses and gradients of several points, so of the same images.

    It is the only kind that waits for the device within a step: what it compares decides on the next point.
    """
    return isinstance(optimizer, torch.optim.LBFGS)


def check_batch_size(config: Config, images: int) -> None:
    """Refuse mini-batches where the optimiser would take their differences for curvature.

    Raises: RequestError for a batch_size below the number of training images.
    """
    batch_size = config.tree["batch_size"]
    optimizer = build(config, ("optimizer",), [nn.Parameter(torch.zeros(1))])
    if is_full_batch(optimizer):
        with refusals(config, "optimizer"):  # torch says nothing, or fails in the first step
            knobs = optimizer.param_groups[0]
            whole("max_iter", knobs["max_iter"], at_least=1)
            whole("history_size", knobs["history_size"], at_least=1)
            one_of("line_search_fn", knobs["line_search_fn"], ["strong_wolfe", None])
    if is_full_batch(optimizer) and batch_size < images:
        says = f"{config.says('optimizer')} batch_size={batch_size}"
        kind = type(optimizer).__name__
        raise RequestError(f"{says}: must be at least {images}, all training images, for {kind}")


def one_function(closure: Callable[[], Tensor], task: Any) -> Callable[[], Tensor]:
    """The closure as a function of the weights alone: every evaluation in a step draws the same numbers.

    The first counts as the step's in the task's metrics; the others only look for the next point.
    """
    seed = int(torch.randint(2**62, ()))
    counted = None

    def evaluate() -> Tensor:
        nonlocal counted
        torch.manual_seed(seed)
        loss = closure()
        counted = counted or (task.sums, task.step_loss)
        task.sums, task.step_loss = dict(counted[0]), counted[1]
        return loss

    return evaluate
