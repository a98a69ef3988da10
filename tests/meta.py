"""A whole run on device="meta": `Meta` stands in for a GPU, and notes who would wait for one.

Tensors of the meta device have a shape and no values, as those of a GPU until it has got round to them.
"""

import contextlib
import traceback
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import torch
from pytorch_lightning.strategies import SingleDeviceStrategy, StrategyRegistry
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from cnnlab.train import train

META = torch.device("meta")
aten = torch.ops.aten


class OnMeta(SingleDeviceStrategy):
    def setup_environment(self):
        """Nothing: Lightning's accelerators accept their own device alone."""


StrategyRegistry.register("meta", OnMeta, device=META)


class Meta(TorchDispatchMode):
    """While it is entered, who reads a number from the meta device gets `value`, who asks for a truth False.

    Noted are those, and whatever else has a CPU wait for a GPU: a boolean mask as an index, the check of a
    factorisation, a copy from or to it.
    """

    def __init__(self, value=0.0):
        super().__init__()
        self.value = value
        self.steps = Counter()  # of each optimizer
        self.optimizer = None  # that took the last of them
        self.waits = []  # (optimizer, its steps until then, who)

    def __enter__(self):
        self.also = contextlib.ExitStack()
        self.also.callback(register_optimizer_step_post_hook(self.stepped).remove)
        self.also.enter_context(Uploads(self.note))
        return super().__enter__()

    def __exit__(self, *exception):
        super().__exit__(*exception)
        self.also.close()

    def stepped(self, optimizer, args, kwargs):
        self.optimizer = optimizer
        self.steps[optimizer] += 1

    def note(self):
        own = [f for f in traceback.extract_stack() if f.filename != __file__ and "/torch/" not in f.filename]
        where = "/".join(Path(own[-1].filename).parts[-2:])
        self.waits.append((self.optimizer, self.steps[self.optimizer], f"{where}: {own[-1].line}"))

    def waited(self):
        """Who waited, how often."""
        return Counter(who for _, _, who in self.waits)

    def waited_in_steps(self):
        """Those after the second step of an optimizer and before its last is done."""
        return Counter(who for optimizer, step, who in self.waits if 2 <= step < self.steps[optimizer])

    def answer(self, asked, dtype=None):
        value = self.value if asked.is_floating_point() else 0
        return torch.full_like(asked, value, dtype=dtype, device="cpu")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        on_meta = [arg.is_meta for arg in args if isinstance(arg, torch.Tensor)]
        if func is aten._to_copy.default and on_meta[0] != (kwargs.get("device", args[0].device) == META):
            self.note()
            if on_meta[0]:
                return self.answer(args[0], kwargs.get("dtype"))
        elif func is aten.copy_.default and on_meta[0] != on_meta[1]:
            self.note()
            if on_meta[1]:
                return args[0].copy_(self.answer(args[1]))
        elif any(on_meta) and needs_values(func, args):
            self.note()
            if func is aten._local_scalar_dense.default:
                return self.answer(args[0]).item()
        try:
            return func(*args, **kwargs)
        except NotImplementedError:
            if not (all(on_meta) and args[0].is_floating_point()):
                raise
            # A loss that torch has for CPUs and GPUs alone.
            on_cpu = partial(torch.zeros_like, device="cpu")
            args, kwargs = tree_map_only(torch.Tensor, on_cpu, (args, kwargs))
            return tree_map_only(torch.Tensor, lambda x: x.to(META), func(*args, **kwargs))


class Uploads(TorchFunctionMode):
    """Notes who makes a tensor of Python's numbers on the meta device: a copy that no operation shows."""

    def __init__(self, note):
        super().__init__()
        self.note = note

    def __torch_function__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        makes = func in (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor)
        if makes and made.is_meta and not isinstance(args[-1], torch.Tensor):
            self.note()
        return made


def needs_values(func, args):
    if func is aten.index.Tensor:
        return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
    decided = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}.intersection(func.tags)
    return bool(decided) or func is aten._linalg_check_errors.default


class Pictures:
    """Fifty training images and ten others, with targets of any kind."""

    def __init__(self, *, targets="class", side=12):
        self.targets, self.side = targets, side
        self.class_names = ["a", "b", "c", "d"]
        self.superclasses = [0, 0, 1, 1] if targets == "class" else None

    def load(self):
        lot = np.random.default_rng(0)
        images = lot.integers(0, 256, (60, 3, self.side, self.side), dtype=np.uint8)
        targets = {
            "class": np.arange(60) % 4,
            "attributes": lot.integers(0, 2, (60, 4)),
            "values": lot.standard_normal((60, 4)),
            "chain": lot.integers(0, 4, (60, 3)),
        }[self.targets]
        return (images[:50], targets[:50]), (images[50:], targets[50:])


def run(composer, folder, line, value=0.0):
    """The result of one run on the meta device, four steps long unless the line says more; and the device."""
    fixed = ["dataset=pictures", "batch_size=12", "epochs=1", "logger=none", "threads=1", "trusted=[tests]"]
    device = ["trainer=cpu", "trainer.strategy=meta", "trainer.precision=32-true"]
    plain = ["trainer.inference_mode=false"]  # where a mode sees the operations that others are made of
    config = composer.one([*fixed, *device, *plain, f"output_dir={folder}", *line.split()])
    if "fused" in config.tree["optimizer"]:
        config.tree["optimizer"]["fused"] = False  # torch has no such step for the meta device
    with Meta(value) as meta:
        return train(config), meta
