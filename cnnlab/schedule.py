"""Learning rates over a training: `schedule(optimizer, epochs=, steps_per_epoch=)`, stepped every batch.

>>> from torch import nn, optim
>>> optimizer = optim.SGD(nn.Linear(1, 1).parameters(), lr=0.4)
>>> schedule = cosine(optimizer, epochs=2, steps_per_epoch=1)
>>> for _ in range(3):
...     print(f"{schedule.get_last_lr()[0]:.1f}")  # 0.2 * (1 + cos(0)), ... cos(pi/2), ... cos(pi)
...     optimizer.step()
...     schedule.step()
0.4
0.2
0.0
"""

from torch.optim import Optimizer
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LRScheduler, OneCycleLR, StepLR

from cnnlab.allowed import number, whole


def constant(optimizer: Optimizer, *, epochs: int, steps_per_epoch: int) -> LRScheduler:
    """The optimiser's learning rate throughout."""
    return ConstantLR(optimizer, factor=1.0, total_iters=0)


def step(
    optimizer: Optimizer, *, epochs: int, steps_per_epoch: int, step_size: int = 10, gamma: float = 0.1
) -> LRScheduler:
    """Times gamma every step_size epochs."""
    whole("step_size", step_size, at_least=1)
    return StepLR(optimizer, step_size * steps_per_epoch, number("gamma", gamma, above=0))


def cosine(optimizer: Optimizer, *, epochs: int, steps_per_epoch: int, eta_min: float = 0.0) -> LRScheduler:
    """Half a cosine from the learning rate down to eta_min."""
    return CosineAnnealingLR(optimizer, epochs * steps_per_epoch, number("eta_min", eta_min, at_least=0))


def one_cycle(
    optimizer: Optimizer,
    *,
    epochs: int,
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
    if number("pct_start", pct_start, above=0) >= 1:
        raise ValueError(f"pct_start must be a number > 0 and < 1, got {pct_start}")
    return OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=epochs * steps_per_epoch,
        pct_start=pct_start * (1 - 1e-9),  # a first phase that ends exactly on step 0 divides by zero
        div_factor=number("div_factor", div_factor, above=0),
        final_div_factor=number("final_div_factor", final_div_factor, above=0),
        cycle_momentum=False,
    )
