"""What the processes of one run share: each computes a part of every batch, and all know the whole's numbers.

Each process reads and augments the whole batch, then takes every size-th example of it, from its rank on.
The scores are gathered, so that loss and metrics are the whole batch's in every process, whatever the loss
and however small the batch. The mean of the gradients is then that of one process, and all decide alike what
is best and when to stop: nothing else is exchanged but batch norms' statistics and whether a signal came.

torch's DistributedDataParallel takes the mean of losses instead: of unequal parts, and of losses that are no
mean over examples, that is another gradient; and it has no batch norm of whole batches on CPUs.

Outside `cnnlab.parallel.ranks` there is one process, and all of this does nothing.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from cnnlab.conv.precision import wide
from cnnlab.signals import Signals

_here = (0, 1)  # rank and size
_stands_in = False  # what is computed now is of an example that is another's, for want of one


def rank() -> int:
    return _here[0]


def size() -> int:
    return _here[1]


@contextlib.contextmanager
def joined(rank: int, size: int, meeting: str) -> Iterator[None]:
    """Be one of the processes that meet in a file; nccl serves the tensors on GPUs, gloo the others."""
    global _here
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, init_method=f"file://{meeting}", rank=rank, world_size=size)
    _here = rank, size
    try:
        yield
        dist.destroy_process_group()  # not where one failed: it could wait for the others
    finally:
        _here = 0, 1


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """For a while compute whole batches, unheard by the others."""
    global _here
    before, _here = _here, (0, 1)
    try:
        yield
    finally:
        _here = before


def highest(number: int) -> int:
    """The highest of the processes' numbers; all of them wait for it."""
    if size() == 1:
        return number
    told = torch.tensor(number)  # on the CPU: no GPU is waited for
    dist.all_reduce(told, dist.ReduceOp.MAX)
    return int(told)


def agree(signals: Signals) -> None:
    """What one of the processes received, all have."""
    signals.received = highest(signals.received or 0) or None


def wait() -> None:
    """Until all processes are here."""
    highest(0)


@contextlib.contextmanager
def leader_first() -> Iterator[None]:
    """Rank 0 goes through this before the others begin."""
    if rank():
        wait()
    yield
    if not rank():
        wait()


def part(examples: Tensor) -> Tensor:
    """This process's examples of a batch: (N, ...) -> (about N / size, ...), at least one.

    What is drawn at random from here on is drawn apart from the other processes.
    """
    global _stands_in
    if size() == 1:
        return examples
    if rank():
        torch.manual_seed(torch.initial_seed() + rank())
    mine = examples[rank() :: size()]
    _stands_in = not len(mine)
    return examples[:1] if _stands_in else mine


def whole(mine: Tensor, count: int) -> Tensor:
    """The whole batch's outputs in its order, from each process's for `part`: -> (count, ...).

    Gradients reach this process's alone, times the number of processes: of theirs the mean is taken.
    """
    if size() == 1:
        return mine
    mine = mine[: len(range(rank(), count, size()))]  # none, of what had but a stand-in
    if mine.requires_grad:
        mine.register_hook(lambda gradient: gradient * size())
    most = -(-count // size())
    padded = torch.cat([mine, mine.new_zeros(most - len(mine), *mine.shape[1:])])
    parts = [torch.empty_like(padded) for _ in range(size())]
    dist.all_gather(parts, padded.detach().contiguous())
    parts[rank()] = padded
    return torch.stack(parts, 1).flatten(0, 1)[:count]  # (most, size, ...) -> example i * size + rank


class InStep(pl.Callback):
    """Keeps the processes' networks equal: each step takes the mean of their gradients."""

    def on_fit_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        if size() > 1:
            share_batch_norms(task)

    @torch.no_grad()
    def on_before_optimizer_step(
        self, trainer: pl.Trainer, task: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        gradients = [p.grad for p in task.parameters() if p.grad is not None]
        if size() == 1 or not gradients:
            return
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= size()
        for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))


class Sum(torch.autograd.Function):
    """The sum over the processes of a tensor of each."""

    @staticmethod
    def forward(context: Any, mine: Tensor) -> Tensor:
        total = mine.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return Sum.forward(context, gradient)


class SharedBatchNorm(_BatchNorm):
    """Batch norm by the statistics of the whole batch; torch's SyncBatchNorm is for GPUs only."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Any."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or size() == 1:
            return super().forward(input)
        pixels = wide(input).transpose(0, 1).flatten(1)  # (C, n)
        if _stands_in:
            pixels = pixels[:, :0]
        count = Sum.apply(pixels.new_full((), pixels.shape[1]))
        mean = Sum.apply(pixels.sum(1)) / count
        variance = Sum.apply((pixels - mean[:, None]).square().sum(1)) / count
        with torch.no_grad():
            if self.running_mean is not None and self.num_batches_tracked is not None:
                self.num_batches_tracked += 1
                share = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
                self.running_mean.lerp_(mean.to(self.running_mean), share)
                unbiased = variance * count / (count - 1)
                self.running_var.lerp_(unbiased.to(self.running_mean), share)  # type: ignore[union-attr]
        shape = [1, -1, *[1] * (input.ndim - 2)]
        output = (input - mean.view(shape)) * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            output = output * self.weight.view(shape) + self.bias.view(shape)
        return output.to(input.dtype)


def share_batch_norms(net: nn.Module) -> None:
    """Make the network's batch norms those of the whole batch; they stay the objects they are."""
    for module in net.modules():
        if isinstance(module, _BatchNorm):
            module.__class__ = SharedBatchNorm
