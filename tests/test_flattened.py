"""Filters of rank 1, and when they are applied whole; test_separable.py holds them to their kernel."""

import pytest
import torch

from cnnlab.conv.flattened import FlattenedConv2d


@pytest.mark.parametrize("k", [3, 5, 11])
def test_flattened_has_rank_1_filters_and_as_many_parameters_as_their_vectors(k: int) -> None:
    conv = FlattenedConv2d(6, 4, k)
    assert sum(p.numel() for p in conv.parameters()) == 4 * (6 + k + k) + 4
    for unfolding in (conv.weight.flatten(2), conv.weight.transpose(1, 2).flatten(2)):
        assert torch.linalg.matrix_rank(unfolding).tolist() == [1] * 4


def test_flattened_applies_its_small_kernels_whole_and_counts_them_so() -> None:
    """F (C + Y X) multiplications a position where Y X is at most 1.5 (Y + X), else F (C + Y + X)."""
    taps = {
        size: FlattenedConv2d(6, 4, size, padding="same").macs((10, 10)) / 400 - 6
        for size in [(3, 3), (5, 5), (2, 3), (1, 7), (7, 1), (3, 5)]
    }
    assert taps == {(3, 3): 9, (5, 5): 10, (2, 3): 6, (1, 7): 7, (7, 1): 7, (3, 5): 8}


def test_both_ways_to_apply_the_vectors_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    conv, x = FlattenedConv2d(6, 4, 3, stride=2, padding=1, padding_mode="circular"), torch.randn(2, 6, 8, 7)
    whole = conv(x)
    monkeypatch.setattr(FlattenedConv2d, "_in_two", False)
    torch.testing.assert_close(conv(x), whole)
