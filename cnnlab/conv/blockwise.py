"""A function of a batch, worked out a few examples at a time: forwards, and once more in the backward pass.

A chain of elementwise operations on a large tensor waits for memory: each link is a new tensor too large for
the cache, and autograd keeps it. In blocks the links stay in the cache, and only what goes in is kept: it is
cheaper to compute a link again than to fetch it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

BLOCK = 2**19  # elements, 2 MB in float32: a handful of links fit the last level of a cache


def blockwise(
    function: Callable[..., Tensor], batches: Sequence[Tensor], shared: Sequence[Tensor | None] = ()
) -> Tensor:
    """function(*batches, *shared), evaluated block by block, with derivatives of every order.

    `function` maps every example on its own and knows of no other tensor with a gradient. Off the CPU all
    examples are one block: there a launch costs more than a way to memory.

    Shape: (N, ...) each of `batches`, any shape each of `shared` -> (N, ...).

    >>> blockwise(torch.mul, [torch.tensor([[1.0, 2.0], [3.0, 4.0]])], [torch.tensor(5.0)])
    tensor([[ 5., 10.],
            [15., 20.]])
    """
    return _Blockwise.apply(function, len(batches), *batches, *shared)


class _Blockwise(torch.autograd.Function):
    @staticmethod
    def forward(function: Callable[..., Tensor], batched: int, *tensors: Any) -> Tensor:
        batches, shared = tensors[:batched], tensors[batched:]
        first, *rest = _blocks(batches)
        block = function(*(t[first] for t in batches), *shared)
        if not rest:
            return block.data  # a view could not be changed in place by what follows
        everyone = block[:1].expand(len(batches[0]), *block.shape[1:])
        y = torch.empty_like(everyone)  # in the memory format of the block
        y[first] = block
        for rows in rest:
            y[rows] = function(*(t[rows] for t in batches), *shared)
        return y

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.function, ctx.batched, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors
        wanted = [i for i, needed in enumerate(ctx.needs_input_grad[2:]) if needed]
        again = torch.is_grad_enabled()  # the gradients are to be differentiated in their turn

        def pulled_back(rows: slice) -> Sequence[Tensor]:
            with torch.enable_grad():
                inputs = [t[rows] for t in tensors[: ctx.batched]]
                inputs += [t if t is None else t.view_as(t) for t in tensors[ctx.batched :]]
                y = ctx.function(*inputs)
            inputs = [inputs[i] for i in wanted]
            return torch.autograd.grad(y, inputs, dy[rows], create_graph=again, materialize_grads=True)

        blocks = _blocks(tensors[: ctx.batched])
        if again or len(blocks) == 1:
            found = pulled_back(slice(None))
        else:
            found = [(torch.empty_like if i < ctx.batched else torch.zeros_like)(tensors[i]) for i in wanted]
            for rows in blocks:
                for i, whole, part in zip(wanted, found, pulled_back(rows), strict=True):
                    if i < ctx.batched:
                        whole[rows] = part
                    else:
                        whole += part
        gradients = dict(zip(wanted, found, strict=True))
        return None, None, *map(gradients.get, range(len(tensors)))


def _blocks(batches: Sequence[Tensor]) -> list[slice]:
    examples = len(batches[0])
    each = max(1, BLOCK * examples // max(1, *(t.numel() for t in batches)))
    if batches[0].device.type != "cpu" or each >= examples:
        return [slice(None)]
    return [slice(start, start + each) for start in range(0, examples, each)]
