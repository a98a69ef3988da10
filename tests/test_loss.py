import math

import pytest
import torch

import cnnlab

# Scores of one image; exp and log by hand: e^-2.85 + e^.86 + e^.28 = 3.74411, whose log is 1.32019.
SCORES, TARGET = torch.tensor([[-2.85, 0.86, 0.28]], dtype=torch.float64), torch.tensor([2])


def test_cross_entropy_of_hand_computed_scores():
    total = math.log(math.exp(-2.85) + math.exp(0.86) + math.exp(0.28))
    assert cnnlab.create("loss", "cross_entropy")(SCORES, TARGET).item() == pytest.approx(total - 0.28)


def test_label_smoothing_spreads_the_target_over_all_classes():
    loss = cnnlab.create("loss", "cross_entropy", label_smoothing=0.3)
    total = math.log(math.exp(-2.85) + math.exp(0.86) + math.exp(0.28))
    expected = 0.1 * (total + 2.85) + 0.1 * (total - 0.86) + 0.8 * (total - 0.28)
    assert loss(SCORES, TARGET).item() == pytest.approx(expected)


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, "much"])
def test_wrong_label_smoothing_is_refused_at_once(value):
    with pytest.raises(ValueError, match=r"^label_smoothing must be "):
        cnnlab.create("loss", "cross_entropy", label_smoothing=value)
