"""Learning rates over a training: `schedule(optimizer, steps=, steps_per_epoch=)`, stepped every batch.

>>> from torch import nn, optim
>>> optimizer = optim.SGD(nn.Linear(1, 1).parameters(), lr=0.4)
>>> schedule = cosine(optimizer, steps=2, steps_per_epoch=1)
>>> for _ in range(3):
...     print(f"{schedule.get_last_lr()[0]:.1f}")  # 0.2 * (1 + cos(0)), ... cos(pi/2), ... cos(pi)
...     optimizer.step()
...     schedule.step()
0.4
0.2
0.0
"""

from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    ExponentialLR,
    LambdaLR,
    LRScheduler,
    OneCycleLR,
    ReduceLROnPlateau,
    StepLR,
)

from cnnlab.allowed import finite, number, whole


def constant(optimizer: Optimizer, *, steps: int, steps_per_epoch: int) -> LRScheduler:
    """The optimiser's learning rate throughout."""
    return ConstantLR(optimizer, factor=1.0, total_iters=0)


def step(
    optimizer: Optimizer, *, steps: int, steps_per_epoch: int, step_size: int = 10, gamma: float = 0.1
) -> LRScheduler:
    """Times gamma every step_size epochs."""
    whole("step_size", step_size, at_least=1)
    return StepLR(optimizer, step_size * steps_per_epoch, finite("gamma", gamma, above=0))


def halve(optimizer: Optimizer, *, steps: int, steps_per_epoch: int, every: int = 5) -> LRScheduler:
    """Halved after every so many epochs."""
    return StepLR(optimizer, whole("every", every, at_least=1) * steps_per_epoch, gamma=0.5)


def exponential(
    optimizer: Optimizer, *, steps: int, steps_per_epoch: int, gamma: float = 0.95
) -> LRScheduler:
    """lr * gamma^t after t epochs, a little less every step.

    It is lr * exp(-k t) with gamma = exp(-k).
    """
    return ExponentialLR(optimizer, finite("gamma", gamma, above=0) ** (1 / steps_per_epoch))


def inverse_time(
    optimizer: Optimizer, *, steps: int, steps_per_epoch: int, decay: float = 0.1
) -> LRScheduler:
    """lr / (1 + decay * t) after t epochs, a little less every step.

    Source: Robbins & Monro 1951; Karpathy et al., CS231n notes, "1/t decay".
    """
    finite("decay", decay, at_least=0)
    return LambdaLR(optimizer, lambda step: 1 / (1 + decay * step / steps_per_epoch))


class Plateau(LRScheduler):
    """Times factor where val/loss has not fallen for more than patience epochs.

    Fallen is what is below (1 - threshold) times the least so far; after a reduction cooldown epochs are not
    judged; the learning rate stays above min_lr. Steps change nothing: `validated` is to be called with every
    validation's loss. Without validation the learning rate stays as it is.

    Source: torch's ReduceLROnPlateau, which it is but for the moment at which it is asked.

    >>> from torch import nn, optim
    >>> optimizer = optim.SGD(nn.Linear(1, 1).parameters(), lr=0.4)
    >>> schedule = Plateau(optimizer, steps=9, steps_per_epoch=1, patience=1)
    >>> for loss in (2.0, 1.0, 1.5, 1.0):  # two epochs in a row that are no better than 1.0
    ...     schedule.validated(loss)
    ...     print(schedule.get_last_lr())
    [0.4]
    [0.4]
    [0.4]
    [0.2]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        steps: int,
        steps_per_epoch: int,
        factor: float = 0.5,
        patience: int = 3,
        threshold: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        number("factor", factor, above=0, below=1)
        self.reduction = ReduceLROnPlateau(
            optimizer,
            factor=factor,
            patience=whole("patience", patience, at_least=0),
            threshold=finite("threshold", threshold, at_least=0),
            cooldown=whole("cooldown", cooldown, at_least=0),
            min_lr=finite("min_lr", min_lr, at_least=0),
        )
        super().__init__(optimizer)

    def step(self, epoch: int | None = None) -> None:
        """Nothing: a step says nothing about validation."""

    def validated(self, loss: Any) -> None:
        """Judge an epoch by its validation loss."""
        self.reduction.step(loss)

    def get_last_lr(self) -> list[Any]:
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        return self.reduction.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.reduction.load_state_dict(state_dict)


def cosine(optimizer: Optimizer, *, steps: int, steps_per_epoch: int, eta_min: float = 0.0) -> LRScheduler:
    """Half a cosine from the learning rate down to eta_min."""
    return CosineAnnealingLR(optimizer, steps, finite("eta_min", eta_min, at_least=0))


def one_cycle(
    optimizer: Optimizer,
    *,
    steps: int,
    steps_per_epoch: int,
    pct_start: float = 0.3,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
) -> LRScheduler:
    """Up to the learning rate in the first pct_start of the steps, then down to ~0.

    By half cosines, from lr / div_factor to lr and on to lr / div_factor / final_div_factor at the last step.

    Source: Smith and Topin 2017, arXiv:1708.07120; the form of torch's OneCycleLR.
    Differs: momentum and betas stay as the optimiser has them, so that only the learning rate changes.
    """
    number("pct_start", pct_start, above=0, below=1)
    return OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=steps,
        pct_start=pct_start * (1 - 1e-9),  # a first phase that ends exactly on step 0 divides by zero
        div_factor=finite("div_factor", div_factor, above=0),
        final_div_factor=finite("final_div_factor", final_div_factor, above=0),
        cycle_momentum=False,
    )
