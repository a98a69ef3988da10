"""The losses against numbers by hand, slow references, and scikit-learn."""

import math

import pytest
import torch
from sklearn import metrics
from torch.nn import functional as F

import cnnlab

# Scores of one image; exp and log by hand: e^-2.85 + e^.86 + e^.28 = 3.74411, whose log is 1.32019.
SCORES, TARGET = torch.tensor([[-2.85, 0.86, 0.28]], dtype=torch.float64), torch.tensor([2])
N, CLASSES, LENGTH = 6, 4, 3


def prepared(word, **knobs):
    loss = cnnlab.create("loss", word, **knobs)
    if hasattr(loss, "prepare"):
        loss.prepare(CLASSES, **({"length": LENGTH} if loss.targets == "chain" else {}))
    return loss.double()


def outputs(loss):
    return loss.outputs(CLASSES) if hasattr(loss, "outputs") else CLASSES


def example(loss, seed=0):
    """Random scores, and targets of the kind that a loss judges."""
    lot = torch.Generator().manual_seed(seed)
    scores = torch.randn(N, outputs(loss), generator=lot, dtype=torch.float64)
    targets = {
        "class": torch.arange(N) % CLASSES,
        "attributes": torch.arange(N * CLASSES).view(N, CLASSES).mul(5).div(3).long() % 2,
        "values": torch.randn(N, CLASSES, generator=lot, dtype=torch.float64),
        "chain": torch.arange(N * LENGTH).view(N, LENGTH) % CLASSES,
    }
    return scores, targets[loss.targets]


@pytest.fixture(params=cnnlab.available("loss"))
def loss(request):
    return prepared(request.param)


def test_the_examples_of_the_notes():
    assert cnnlab.create("loss", "cross_entropy")(SCORES, TARGET).item() == pytest.approx(1.0402, abs=5e-5)
    assert cnnlab.create("loss", "hinge")(SCORES, TARGET).item() == pytest.approx(1.58)
    assert cnnlab.create("loss", "squared_hinge")(SCORES, TARGET).item() == pytest.approx(1.58**2)
    scores = torch.tensor([[13.0, -7.0, 11.0]])  # margin 10: max(0, -7 - 13 + 10) + max(0, 11 - 13 + 10)
    assert cnnlab.create("loss", "hinge", margin=10)(scores, torch.tensor([0])).item() == 8


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


@pytest.mark.parametrize("word", ["hinge", "squared_hinge"])
@pytest.mark.parametrize("value", [0, -1, math.inf, math.nan, "1"])
def test_a_wrong_margin_is_refused_at_once(word, value):
    with pytest.raises(ValueError, match=r"^margin must be "):
        cnnlab.create("loss", word, margin=value)


@pytest.mark.parametrize(("word", "power"), [("hinge", 1), ("squared_hinge", 2)])
def test_hinge_sums_over_the_other_classes_and_averages_over_images(word, power):
    loss = prepared(word, margin=1.5)
    scores, targets = example(loss)
    slow = 0.0
    for s, y in zip(scores.tolist(), targets.tolist(), strict=True):
        slow += sum(max(0.0, s[j] - s[y] + 1.5) ** power for j in range(CLASSES) if j != y)
    assert loss(scores, targets).item() == pytest.approx(slow / N)


def test_hinge_of_two_classes_is_that_of_scikit_learn():
    scores = torch.randn(9, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    targets = torch.arange(9) % 2
    theirs = metrics.hinge_loss(targets, scores[:, 1] - scores[:, 0])
    assert prepared("hinge")(scores, targets).item() == pytest.approx(theirs)


def test_losses_of_attributes_and_values_are_the_sums_of_scikit_learns():
    scores, targets = example(prepared("attribute_hinge"))
    columns = [(targets[:, j].numpy(), scores[:, j].numpy()) for j in range(CLASSES)]
    hinge = sum(metrics.hinge_loss(y, f) for y, f in columns)
    entropy = sum(metrics.log_loss(y, 1 / (1 + pow(math.e, -f))) for y, f in columns)
    assert prepared("attribute_hinge")(scores, targets).item() == pytest.approx(hinge)
    assert prepared("binary_cross_entropy")(scores, targets).item() == pytest.approx(entropy)
    scores, targets = example(prepared("l2"))
    l1, l2 = metrics.mean_absolute_error(targets, scores), metrics.mean_squared_error(targets, scores)
    assert prepared("l1")(scores, targets).item() == pytest.approx(l1 * CLASSES)
    assert prepared("l2")(scores, targets).item() == pytest.approx(l2 * CLASSES)


def test_the_gradients_are_those_of_the_textbook():
    """s(f) - y, not y - s(f); 2 (f - y); sign(f - y); each over the number of images."""
    scores, targets = example(prepared("l2"))
    there = (targets > 0).double()
    for word, truth, expected in [
        ("binary_cross_entropy", there, scores.sigmoid() - there),
        ("l2", targets, 2 * (scores - targets)),
        ("l1", targets, (scores - targets).sign()),
    ]:
        leaf = scores.clone().requires_grad_()
        prepared(word)(leaf, truth).backward()
        torch.testing.assert_close(leaf.grad, expected / N)


def test_the_gradient_is_that_of_the_value(loss):
    scores, targets = example(loss)
    parameters = tuple(loss.parameters())
    for parameter in parameters:
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
    assert torch.autograd.gradcheck(
        lambda scores, *_: loss(scores, targets), (scores.requires_grad_(), *parameters)
    )


def test_images_given_twice_change_nothing_and_their_order_neither(loss):
    scores, targets = example(loss)
    value = loss(scores, targets)
    torch.testing.assert_close(loss(scores.repeat(2, 1), torch.cat([targets, targets])), value)
    torch.testing.assert_close(loss(scores.flip(0), targets.flip(0)), value)


def test_theory_knows_the_loss_of_scores_that_tell_nothing(loss):
    _, targets = example(loss)
    if loss.targets == "class":  # all equally frequent
        targets = torch.arange(CLASSES)
    scores = torch.zeros(len(targets), outputs(loss), dtype=torch.float64)
    if hasattr(loss, "at_random"):
        assert loss(scores, targets).item() == pytest.approx(loss.at_random(CLASSES))
    else:
        assert loss.targets == "values"


def test_what_theory_says_in_numbers():
    assert prepared("cross_entropy").at_random(10) == pytest.approx(2.302585)
    assert prepared("hinge").at_random(10) == 9
    assert prepared("squared_hinge", margin=2).at_random(10) == 36
    assert prepared("binary_cross_entropy").at_random(10) == pytest.approx(6.931472)
    assert prepared("attribute_hinge").at_random(10) == 10


def test_rounded_scores_are_judged_in_full_precision(loss):
    scores, targets = example(loss.float())
    rounded, targets = scores.bfloat16(), targets.float() if loss.targets == "values" else targets
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(rounded, targets)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(rounded.float(), targets))


@pytest.mark.parametrize("word", ["attribute_hinge", "binary_cross_entropy", "l1", "l2"])
def test_a_column_of_targets_is_never_spread_over_a_column_of_scores(word):
    scores, targets = torch.randn(5, 1, generator=torch.Generator().manual_seed(0)), torch.ones(5)
    loss = prepared(word)
    torch.testing.assert_close(loss(scores, targets), loss(scores, targets.unsqueeze(1)))
    with pytest.raises(RuntimeError, match="shape"):
        loss(scores, torch.ones(5, 5))


def test_huge_scores_give_no_nan(loss):
    scores, targets = example(loss)
    huge = (scores * 1e4).requires_grad_()
    value = loss(huge, targets)
    value.backward()
    assert value.isfinite()
    assert huge.grad.isfinite().all()


def test_cross_entropy_is_log_loss_of_scikit_learn():
    scores, targets = example(prepared("cross_entropy"))
    theirs = metrics.log_loss(targets, F.softmax(scores, 1))
    assert prepared("cross_entropy")(scores, targets).item() == pytest.approx(theirs)
