"""What the monitor says and draws."""

import math

import numpy as np
import pytest

from cnnlab.monitor.advice import advice
from cnnlab.monitor.histograms import Histogram
from cnnlab.monitor.picture import curves, distributions, pixels, share


def epochs(train_loss, val_loss, train_accuracy, val_accuracy):
    columns = {
        "train/loss": train_loss,
        "val/loss": val_loss,
        "train/accuracy": train_accuracy,
        "val/accuracy": val_accuracy,
    }
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return [{"step": 10 * epoch, "epoch": epoch, **row} for epoch, row in enumerate(rows, 1)]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (epochs([1, 0.5, 0.1], [1, 0.8, 0.9], [0.5, 0.8, 1], [0.5, 0.8, 0.79]), "overfitting: since epoch 2"),
        (
            epochs([1, 0.5, 0.4], [1, 0.8, 0.8], [0.5, 0.8, 0.9], [0.5, 0.7, 0.75]),
            "overfitting: accuracy",
        ),
        (
            epochs([1, 0.9, 0.8], [1, 0.9, 0.8], [0.5, 0.6, 0.7], [0.5, 0.6, 0.7]),
            "unfinished: accuracy",
        ),
        (epochs([1, 0.9, 0.9], [1, 0.9, 0.91], [0.5, 0.6, 0.6], [0.5, 0.6, 0.6]), "underfitting: "),
        (epochs([1, 0.1], [1, 0.1], [0.5, 0.995], [0.5, 0.99]), None),
        (epochs([1, 0.5], [1, 0.7], [0.5, 0.85], [0.5, 0.8]), None),
        ([], None),
        ([{"step": 0, "epoch": 0, "ortho/loss": 1.0}], None),
        ([{"step": 9, "epoch": 1, "train/loss": 1.0, "val/loss": 1.0, "val/rmse": 2.0}], None),
        (epochs([math.nan] * 2, [math.nan] * 2, [0.1] * 2, [0.1] * 2), "underfitting: "),
    ],
)
def test_the_gap_is_put_in_words(rows, said):
    lines = advice(rows)
    assert lines == [] if said is None else (len(lines) == 1 and lines[0].startswith(said))


def test_layers_are_judged_by_their_last_figures():
    first = {"update_ratio/conv1": 0.5, "update_ratio/conv2": 1e-3, "dead/conv1": 0.9, "near_zero/conv2": 0.2}
    last = {"update_ratio/conv1": 1e-3, "update_ratio/conv2": 2e-5, "dead/conv1": 0.9, "near_zero/conv2": 0.8}
    lines = advice([{"step": 1, "epoch": 0, **first}, {"step": 9, "epoch": 0, **last}])
    assert [line.partition(":")[0] for line in lines] == [
        "conv2 (2e-05)",
        "conv1 (0.9)",
        "conv2 (0.8)",
    ]


def test_curves_are_over_epochs_and_losses_on_a_log_scale():
    rows = epochs([1, 0.1], [2, 0.2], [0.5, 1.0], [0.25, 0.75])
    step = {"train/loss_step": 0.3, "update_ratio/conv1": 1e-3, "dead/conv1": 0.5}
    rows.insert(1, {"step": 15, "epoch": 1, **step})
    figure = curves(rows, ["advice"])
    loss, accuracy, ratio, near_zero, dead, _ = figure.axes
    assert [axis.get_yscale() for axis in (loss, accuracy, ratio)] == ["log", "linear", "log"]
    assert [line.get_xydata().tolist() for line in loss.lines] == [
        [[1, 1], [2, 0.1]],
        [[1, 2], [2, 0.2]],
        [[1.5, 0.3]],
    ]
    assert ratio.lines[0].get_xydata().tolist() == [[1.5, 1e-3]]
    assert dead.lines[0].get_ydata().tolist() == [0.5] and not near_zero.axison
    gap = accuracy.collections[0].get_paths()[0].vertices
    assert gap[:, 1].min() == 0.25 and gap[:, 1].max() == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0, -1.0, 3e38])
def test_any_row_can_be_drawn(value):
    row = {"step": 1, "epoch": 1, "train/loss": value, "val/loss": value, "update_ratio/conv1": value}
    assert pixels(curves([row, row], [])).std() > 0
    assert pixels(curves([], ["nothing was trained"])).shape[2] == 3


def test_histograms_are_columns_in_time():
    steps = [
        (1, {"weight/conv1": Histogram(0.0, 1.0, [4, 0]), "activation/conv1": Histogram(0.0, 0.0, [5, 0])}),
        (10, {"weight/conv1": Histogram(0.0, 2.0, [1, 3])}),
    ]
    figure = distributions(steps)
    activation, gradient, weight = figure.axes
    assert [axis.get_title("left") for axis in figure.axes[:3]] == [
        f"{k} conv1" for k in ("activation", "gradient", "weight")
    ]
    assert not gradient.axison and activation.collections
    shares = weight.collections[0].get_array() ** 2  # (bins, steps)
    np.testing.assert_allclose(shares[:, 0], [1 / 16] * 16 + [0] * 48)
    np.testing.assert_allclose(shares[:, 1], [1 / 128] * 32 + [3 / 128] * 32)
    assert pixels(figure).std() > 0


def test_shares_keep_what_lies_between_the_edges():
    edges = np.linspace(-3, 3, 11)
    for values in ((-1.0, 2.5, [1, 0, 7]), (0.2, 0.2, [3]), (-3.0, 3.0, [1, 1])):
        assert share(Histogram(*values), edges).sum() == pytest.approx(1)


def test_many_layers_are_thinned_out_and_numbers_sorted():
    names = [f"conv{index}" for index in range(1, 21)]
    figure = distributions([(1, {f"weight/{name}": Histogram(0.0, 1.0, [1, 1]) for name in names})])
    titles = [axis.get_title("left") for axis in figure.axes]
    assert len(titles) == 24 and titles[0].endswith(" conv1") and titles[7].endswith(" conv20")
    row = {"step": 1, "epoch": 0} | {f"dead/{name}": 0.5 for name in reversed(names)}
    labels = [line.get_label() for line in curves([row], []).axes[4].lines]
    assert labels == names
    assert distributions([]) is not None
