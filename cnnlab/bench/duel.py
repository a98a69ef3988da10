"""A variant against its baseline on one shape: counts, times taken in turns, memory.

Everything is as training has it: channels_last, autocast and threads as the configuration says, a weight that
is built in every step built in every measured step.
"""

import os
import time
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cnnlab import cost
from cnnlab.allowed import RequestError
from cnnlab.bench.measurement import Measurement
from cnnlab.bench.stopwatch import alternate
from cnnlab.config import Config
from cnnlab.memory import keep_freed_memory, peak_bytes
from cnnlab.network import build_net, with_standard_conv
from cnnlab.refusals import build, refusals
from cnnlab.trainer import THREADS, build_trainer


class Runner:
    """A module and a batch on a device: a pass of evaluation, a training step but for the update."""

    def __init__(self, module: nn.Module, batch: Tensor, trainer: pl.Trainer) -> None:
        self.batch, self.device, self.precision = batch, batch.device, trainer.precision_plugin
        self.module = self.precision.convert_module(module.train()).to(batch.device)
        self.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.leaves = [leaf for leaf in (batch, *module.parameters()) if leaf.requires_grad]
        with self.precision.forward_context():
            self.gradient = torch.randn_like(self.module(self.batch))

    @torch.no_grad()
    def forward(self) -> None:
        with self.precision.forward_context():
            self.module(self.batch)

    def step(self) -> None:
        with self.precision.forward_context():
            output = self.module(self.batch)
        torch.autograd.grad(output, self.leaves, self.gradient, allow_unused=True)

    def clock(self) -> float:
        """The time when all that was begun is done."""
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)
        return time.perf_counter()


def measure(row: Measurement, config: Config, *, classes: int | None, repeats: int | None) -> None:
    """Fill a row, of a network where there are classes, else of a layer; it tells what goes wrong too."""
    try:
        _measure(row, config, classes, repeats)
    except RequestError as error:
        if isinstance(error.__cause__, NotImplementedError | ValueError | None):
            row.refused = str(error)
        else:
            row.failed = str(error)
    except Exception as error:
        if os.environ.get("HYDRA_FULL_ERROR"):
            raise
        row.failed = f"{type(error).__name__}: {' '.join(str(error).split())}"


def _measure(row: Measurement, config: Config, classes: int | None, repeats: int | None) -> None:
    keep_freed_memory()  # as train() does
    torch.set_num_threads(config.tree["threads"] or THREADS)
    trainer = build_trainer(config, [])
    row.threads, row.precision = torch.get_num_threads(), trainer.precision
    row.device = str(trainer.strategy.root_device)
    standard = with_standard_conv(config)
    sizes = [int(size) for size in row.shape.split(",")]
    shape = sizes[0], sizes[-2 if classes else -1], sizes[-1]  # (C, H, W)
    modules = [_module(contestant, sizes, classes) for contestant in (config, standard)]

    variant = modules[0]
    row.groups = getattr(variant, "groups", None)
    row.macs, row.macs_by_torch = cost.macs(variant, shape), counted_by_torch(variant, shape)
    batch = torch.randn(row.batch_size, *shape).to(row.device, memory_format=torch.channels_last)
    batch = trainer.precision_plugin.convert_input(batch)
    batch.requires_grad_(classes is None)  # an inner layer passes the gradient on
    ours, theirs = (Runner(module, batch, trainer) for module in modules)
    row.params = cost.parameters(variant)
    row.param_bytes = _bytes(variant.parameters())
    row.state_bytes = _bytes(variant.state_dict().values())

    step = alternate(ours.step, theirs.step, repeats=repeats, clock=ours.clock)
    row.step, row.baseline_step_ms = step.quartiles, step.baseline_ms
    row.peak_bytes = peak_bytes(ours.step, ours.device)
    row.baseline_peak_bytes = peak_bytes(theirs.step, theirs.device)
    for module in modules:
        module.eval()
    forward = alternate(ours.forward, theirs.forward, repeats=repeats, clock=ours.clock)
    row.forward, row.baseline_forward_ms = forward.quartiles, forward.baseline_ms
    row.forward_repeats, row.step_repeats = forward.repeats, step.repeats


def _module(config: Config, sizes: Sequence[int], classes: int | None) -> nn.Module:
    """The layer or network, from seed 0; lazy layers get their size as in a model, by a pass over zeros."""
    torch.manual_seed(0)
    if classes is not None:
        net = build_net(config, tuple(sizes), classes)
        if hasattr(net, "memorize"):
            raise RequestError(f"{config.says('model')}: takes no steps, so there are none to time")
        return net
    in_channels, out_channels, kernel_size, size = sizes
    same = {} if "padding" in config.tree["conv"] else {"padding": "same"}
    conv: nn.Module = build(config, ("conv",), in_channels, out_channels, kernel_size, **same)
    with refusals(config, "conv"), torch.no_grad():
        conv.eval()(torch.zeros(1, in_channels, size, size))
    return conv


def counted_by_torch(module: nn.Module, shape: Sequence[int]) -> int | None:
    """Multiply-accumulates of one image, as FlopCounterMode sees them; None where it sees nothing.

    What a batch of 2 takes beyond a batch of 1: building the weight is in both.

    >>> counted_by_torch(nn.Conv2d(4, 6, 3), (4, 5, 5)), counted_by_torch(nn.ReLU(), (4, 5, 5))
    (1944, None)
    """

    def flops(images: int) -> int:
        mapping = {torch.ops.aten.bmm: _bmm_flops}
        with FlopCounterMode(display=False, custom_mapping=mapping) as counter, torch.no_grad():
            module(torch.zeros(images, *shape))
        return int(counter.get_total_flops())

    module.eval()
    return (flops(2) - flops(1)) // 2 or None


def _bmm_flops(a: Tensor, b: Tensor, *args: Any, out_val: Tensor, **kwargs: Any) -> int:
    """Two for a product of real numbers; of complex ones, which torch counts alike, each takes four."""
    return 2 * a.numel() * b.shape[-1] * (4 if a.is_complex() else 1)


_bmm_flops._get_raw = True  # type: ignore[attr-defined]  # tensors, not their shapes


def _bytes(tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
