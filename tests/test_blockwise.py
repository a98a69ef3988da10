"""A function evaluated block by block gives what it gives at once, and keeps no more than what goes in."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cnnlab.conv import blockwise as module
from cnnlab.conv.blockwise import blockwise


def wave(x: Tensor, y: Tensor, a: Tensor, b: Tensor | None) -> Tensor:
    """One map of y serves all channels of x; `a` is per channel."""
    out = torch.sin(x * y) * torch.exp(a)
    return out if b is None else out + b * y


@pytest.fixture
def tensors() -> list[Tensor]:
    torch.manual_seed(0)
    shapes = (7, 3, 4, 5), (7, 1, 4, 5), (3, 1, 1), ()
    return [torch.randn(shape, dtype=torch.float64).requires_grad_() for shape in shapes]


def of_examples(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", count * 3 * 4 * 5)


@pytest.mark.parametrize("count", [1, 3, 6, 7, 100])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_values_and_gradients_are_those_of_the_whole(
    count: int, layout: torch.memory_format, tensors: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    of_examples(count, monkeypatch)
    x, y, a, b = tensors
    x = x.to(memory_format=layout)
    weights = torch.randn(7, 3, 4, 5, dtype=torch.float64)
    expected, found = wave(x, y, a, b), blockwise(wave, [x, y], [a, b])
    assert torch.equal(found, expected)
    assert found.is_contiguous(memory_format=layout)
    for part, whole in zip(
        torch.autograd.grad(found, tensors, weights),
        torch.autograd.grad(expected, tensors, weights),
        strict=True,
    ):
        torch.testing.assert_close(part, whole, rtol=1e-13, atol=1e-13)


def test_what_needs_no_gradient_or_is_none_gets_none(
    tensors: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    of_examples(2, monkeypatch)
    x, y, a, _ = tensors
    y.requires_grad_(False)
    blockwise(wave, [x, y], [a, None]).sum().backward()
    assert (x.grad is not None, y.grad, a.grad is not None) == (True, None, True)


def test_what_the_function_leaves_unused_has_gradient_zero(
    tensors: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    of_examples(2, monkeypatch)
    x, y, a, b = tensors
    gradients = torch.autograd.grad(blockwise(lambda x, y, a, b: x.exp(), [x, y], [a, b]).sum(), tensors)
    assert torch.equal(gradients[0], x.exp())
    assert not any(gradient.any() for gradient in gradients[1:])


def test_derivatives_of_both_orders_are_those_of_finite_differences(
    tensors: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    of_examples(2, monkeypatch)

    def forward(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return blockwise(wave, [x, y], [a, b])

    assert torch.autograd.gradcheck(forward, tensors, fast_mode=True)
    assert torch.autograd.gradgradcheck(forward, tensors, fast_mode=True)


def test_inputs_that_depend_on_one_another_are_told_apart(tensors: list[Tensor]) -> None:
    x, a = tensors[0], tensors[2]

    def gradient(call: Callable[[Tensor, Tensor], Tensor], create_graph: bool) -> Tensor:
        return torch.autograd.grad(call(x * a, a).sum(), a, create_graph=create_graph)[0]

    expected = gradient(torch.mul, False)  # 2 a x, not 3
    for create_graph in (False, True):
        found = gradient(lambda u, v: blockwise(torch.mul, [u], [v]), create_graph)
        torch.testing.assert_close(found, expected)


def test_no_call_gets_more_than_a_block(tensors: list[Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    of_examples(3, monkeypatch)
    seen: list[int] = []

    def noted(x: Tensor) -> Tensor:
        seen.append(len(x))
        return x.exp()

    y = blockwise(noted, [tensors[0]])
    assert seen == [3, 3, 1]
    y.sum().backward()
    assert seen == [3, 3, 1] * 2


def test_nothing_is_kept_but_what_goes_in(tensors: list[Tensor]) -> None:
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.data_ptr()), lambda t: t):
        blockwise(wave, tensors[:2], tensors[2:])
    assert kept == [t.data_ptr() for t in tensors]


def test_a_batch_without_examples_stays_one(tensors: list[Tensor]) -> None:
    x, y, a, b = tensors
    out = blockwise(wave, [x[:0], y[:0]], [a, b])
    out.sum().backward()
    assert out.shape == (0, 3, 4, 5)
    assert not a.grad.any()
