"""The optimiser's momentum over a training: `momentum(optimizer, share of the training that is done)`."""

from torch.optim import Optimizer

from cnnlab.allowed import number


class Constant:
    """The optimiser's own momentum throughout."""

    def check(self, optimizer: Optimizer) -> None:
        """Refuse, by ValueError, an optimiser without a momentum to change."""

    def __call__(self, optimizer: Optimizer, share: float) -> None:
        """Set the momentum of the next step."""


class Annealed(Constant):
    """Momentum that rises on a line from start to end, then stays.

    mu(t) = start + (end - start) * min(1, t / over),  t the share of the steps that is done.  It takes the
    place of optimizer.momentum, and goes with every schedule of the learning rate. Early gradients point in
    new directions that old ones should not outvote; late ones are noise to be averaged.

    Source: Sutskever et al. 2013, On the importance of initialization and momentum in deep learning;
    Karpathy et al., CS231n notes: from 0.5 to 0.99.

    Raises: ValueError for an optimiser whose momentum is 0 or that has none. Adam's first beta is none: its
    bias correction counts on a constant.

    >>> from torch import nn, optim
    >>> optimizer = optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1, momentum=0.9)
    >>> momentum = Annealed(start=0.5, end=0.9, over=0.5)
    >>> for share in (0.0, 0.25, 0.5, 0.75):
    ...     momentum(optimizer, share)
    ...     print(round(optimizer.param_groups[0]["momentum"], 3))
    0.5
    0.7
    0.9
    0.9
    """

    def __init__(self, *, start: float = 0.5, end: float = 0.99, over: float = 1.0):
        self.start = number("start", start, at_least=0, below=1)
        self.end = number("end", end, at_least=0, below=1)
        self.over = number("over", over, above=0, at_most=1)

    def check(self, optimizer: Optimizer) -> None:
        if not optimizer.param_groups[0].get("momentum"):
            raise ValueError(f"the optimizer must have a momentum, {type(optimizer).__name__} has none")

    def __call__(self, optimizer: Optimizer, share: float) -> None:
        momentum = self.start + (self.end - self.start) * min(1.0, share / self.over)
        for group in optimizer.param_groups:
            group["momentum"] = momentum
