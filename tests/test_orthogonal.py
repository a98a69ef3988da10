"""OrthogonalConv2d against explicit products of reflections, and the counts and conventions of its source."""

import pytest
import torch
from torch import Tensor, nn

from cnnlab.conv.orthogonal import OrthogonalConv2d, householder_columns


def explicit(vectors: Tensor) -> Tensor:
    """First n columns of H_1 ... H_n, one m x m product at a time, in float64."""
    m, n = vectors.shape
    product = torch.eye(m, dtype=torch.float64)
    for v in vectors.double().T:
        product = product @ (torch.eye(m, dtype=torch.float64) - 2 * torch.outer(v, v) / (v @ v))
    return product[:, :n]


def explicit_vectors(conv: OrthogonalConv2d, group: int) -> Tensor:
    """The zero-padded vectors of one group, entry by entry: v_i has n - i zeros, then its free entries."""
    m, n = max(conv.matrix_shape), min(conv.matrix_shape)
    entries = iter(conv.free_entries.detach().view(conv.groups, -1)[group])
    vectors = torch.zeros(m, n)
    for i in range(n, 0, -1):
        for row in range(n - i, m):
            vectors[row, i - 1] = next(entries)
    assert next(entries, None) is None, "more parameters than free entries"
    return vectors


@pytest.mark.parametrize(("m", "n"), [(1, 1), (4, 1), (4, 4), (28, 6), (77, 32)])
def test_householder_columns_are_those_of_the_explicit_product(m: int, n: int) -> None:
    torch.manual_seed(0)
    batch = torch.rand(2, m, n, dtype=torch.float64) * 2 - 1
    expected = torch.stack([explicit(vectors) for vectors in batch])
    torch.testing.assert_close(householder_columns(batch), expected, rtol=0, atol=1e-13)
    torch.testing.assert_close(householder_columns(batch.float()), expected.float(), rtol=0, atol=2e-5)


def test_the_vectors_length_does_not_matter_and_a_zero_vector_is_the_identity() -> None:
    vectors = torch.randn(5, 3, dtype=torch.float64)
    scaled = vectors * torch.tensor([2.0, -3.0, 1e-8], dtype=torch.float64)
    torch.testing.assert_close(householder_columns(scaled), householder_columns(vectors))
    zero = torch.zeros(3, 2, requires_grad=True)
    q = householder_columns(zero)
    assert torch.equal(q, torch.eye(3, 2))
    q.sum().backward()
    assert zero.grad is not None
    assert torch.equal(zero.grad, torch.zeros(3, 2))


def test_fewer_rows_than_columns_are_refused() -> None:
    with pytest.raises(ValueError, match="vectors must have at least as many rows as columns, got 2 x 3"):
        householder_columns(torch.ones(2, 3))


@pytest.mark.parametrize("bias_row", ["last", "first", None])
@pytest.mark.parametrize(
    ("channels_in", "channels_out", "groups"), [(3, 8, 1), (4, 6, 2), (1, 24, 1), (2, 50, 2)]
)
def test_kernel_and_bias_are_rows_of_the_explicit_product(
    channels_in: int, channels_out: int, groups: int, bias_row: str | None
) -> None:
    torch.manual_seed(0)
    knobs = {} if bias_row is None else {"bias_row": bias_row}
    conv = OrthogonalConv2d(
        channels_in, channels_out, (3, 2), groups=groups, bias=bias_row is not None, **knobs
    )
    for group, (weight, bias) in enumerate(
        zip(
            conv.weight.chunk(groups),
            [None] * groups if conv.bias is None else conv.bias.chunk(groups),
            strict=True,
        )
    ):
        q = explicit(explicit_vectors(conv, group)).float()
        if conv.matrix_shape[0] < conv.matrix_shape[1]:
            q = q.T
        if bias_row == "last":
            q, expected_bias = q[:-1], q[-1]
        elif bias_row == "first":
            q, expected_bias = q[1:], q[0]
        expected = q.reshape(3, 2, channels_in // groups, channels_out // groups).permute(3, 2, 0, 1)
        torch.testing.assert_close(weight, expected, rtol=0, atol=1e-5)
        if bias is not None:
            torch.testing.assert_close(bias, expected_bias, rtol=0, atol=1e-5)


def test_only_free_entries_are_parameters() -> None:
    # The four convolutions of Singla's CIFAR network.
    layers = [(3, 32, 5, 1936), (32, 32, 3, 8752), (32, 64, 3, 16480), (64, 64, 3, 34912)]
    for channels_in, channels_out, kernel, free in layers:
        conv = OrthogonalConv2d(channels_in, channels_out, kernel)
        assert {name: p.numel() for name, p in conv.named_parameters()} == {"free_entries": free}
        assert list(conv.state_dict()) == ["free_entries"]
        assert conv.violation() < conv.tolerance


def test_entries_are_drawn_from_minus_one_to_one() -> None:
    torch.manual_seed(0)
    entries = OrthogonalConv2d(16, 64, 3).free_entries
    assert -1 <= entries.min() < -0.99
    assert 0.99 < entries.max() <= 1
    assert abs(entries.mean()) < 0.02


@pytest.mark.parametrize("channels_out", [6, 40])
def test_trainable_scales_multiply_elementwise_and_then_violate(channels_out: int) -> None:
    torch.manual_seed(0)
    plain, scaled = (OrthogonalConv2d(2, channels_out, 3, trainable_scale=s) for s in (False, True))
    scaled.load_state_dict(plain.state_dict(), strict=False)
    assert torch.equal(scaled.weight, plain.weight)
    assert scaled.violation() < scaled.tolerance
    weight_scale, bias_scale = torch.rand_like(plain.weight), torch.rand(channels_out)
    scaled.load_state_dict(
        {**plain.state_dict(), "weight_scale": weight_scale, "bias_scale": bias_scale}, strict=True
    )
    assert torch.equal(scaled.weight, plain.weight * weight_scale)
    assert plain.bias is not None
    assert torch.equal(scaled.bias, plain.bias * bias_scale)
    assert scaled.violation() > 0.1


def test_violation_is_the_largest_deviation_from_the_identity() -> None:
    conv = OrthogonalConv2d(1, 2, (1, 2), bias=False, trainable_scale=True)
    conv.free_entries.data = torch.tensor([3.0, 4.0, 1.0])  # filters (.28, .96) and (-.96, .28)
    assert conv.weight_scale is not None
    conv.weight_scale.data[0] = 2.0  # the first filter's squared length is 4
    assert conv.violation().item() == pytest.approx(3.0)


def test_autocast_does_not_touch_the_orthonormality() -> None:
    conv = OrthogonalConv2d(16, 32, 3)
    with torch.autocast("cpu", torch.bfloat16):
        weight, violation = conv.weight, conv.violation()
    assert weight.dtype == torch.float32
    assert torch.equal(weight, conv.weight)
    assert violation < conv.tolerance


def test_the_kernel_cannot_be_overwritten() -> None:
    conv = OrthogonalConv2d(2, 2, 1)
    with pytest.raises(KeyError):
        conv.weight = nn.Parameter(torch.zeros(2, 2, 1, 1))
    with pytest.raises(AttributeError):
        conv.bias = torch.zeros(2)


def test_what_has_no_effect_is_refused() -> None:
    with pytest.raises(ValueError, match="bias_row must be one of last; got 'first'"):
        OrthogonalConv2d(2, 2, 1, bias=False, bias_row="first")
    with pytest.raises(ValueError, match="bias_row must be one of last, first; got 'lasst', did you mean"):
        OrthogonalConv2d(2, 2, 1, bias_row="lasst")
    with pytest.raises(ValueError, match="trainable_scale must be true or false, got 1"):
        OrthogonalConv2d(2, 2, 1, trainable_scale=1)
