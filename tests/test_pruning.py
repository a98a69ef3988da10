"""A run that lags behind is stopped, and loses nothing by it."""

from dataclasses import replace

import pytest

from cnnlab.compose import Composer
from cnnlab.history import History
from cnnlab.monitor.pruning import Pruned, Pruning
from cnnlab.result import Result
from tests import isolated

LINES = ["epochs=3", "logger=none", "threads=1", "batch_size=256", "model.filters=[4]"]


def history(folder, *accuracies: float) -> History:
    rows = History(folder / "history.csv")
    for epoch, accuracy in enumerate(accuracies, start=1):
        rows.append({"step": epoch, "epoch": epoch, "val/accuracy": accuracy})
    return rows


def test_the_best_epoch_so_far_is_held_against_the_bar(tmp_path):
    rows = history(tmp_path, 0.6, 0.4)
    Pruning(rows, "val/accuracy", True, [None, 0.6]).judge(2)  # the first epoch was as good as the bar
    with pytest.raises(Pruned, match=r"after epoch 2: val/accuracy 0\.6, the median of others is 0\.61"):
        Pruning(rows, "val/accuracy", True, [None, 0.61]).judge(2)


def test_of_losses_the_lowest_counts(tmp_path):
    rows = history(tmp_path, 0.6, 0.4)
    Pruning(rows, "val/accuracy", False, [0.1, 0.4]).judge(2)
    with pytest.raises(Pruned):
        Pruning(rows, "val/accuracy", False, [0.1, 0.39]).judge(2)


def test_without_a_bar_or_a_value_nothing_is_stopped(tmp_path):
    rows = history(tmp_path, 0.1)
    for epochs in (0, 1, 2):  # before the first epoch, where nothing is known, after the last bar
        Pruning(rows, "val/accuracy", True, [None]).judge(epochs)
    Pruning(rows, "val/f1", True, [0.9]).judge(1)


def train(folder: str, bars: list[float | None] | None) -> Result:
    from cnnlab.train import train

    config = Composer().one([*LINES, f"output_dir={folder}"])
    if bars is not None:
        prune = {"metric": "val/accuracy", "maximize": True, "bars": bars}
        config = replace(config, tree=config.tree | {"sweep": {"prune": prune}})
    return train(config)


def numbers(result: Result) -> dict[str, float]:
    return {key: value for key, value in result.metrics.items() if not key.startswith("time/")}


def test_a_stopped_run_is_not_done_and_asked_for_without_bars_goes_on_exactly(tmp_path):
    stopped = isolated.run(train, f"{tmp_path}/stopped", [None, 1.1])
    assert (stopped.status, stopped.epochs_done) == ("pruned", 2)
    assert stopped.error.startswith("after epoch 2: val/accuracy 0.")
    again = isolated.run(train, f"{tmp_path}/stopped", [None, 1.1])
    assert (again.status, again.error, again.epochs_done) == ("pruned", stopped.error, 2)
    gone_on = isolated.run(train, f"{tmp_path}/stopped", None)
    whole = isolated.run(train, f"{tmp_path}/whole", None)
    assert gone_on.status == "done" and gone_on.id == whole.id == stopped.id
    assert numbers(gone_on) == numbers(whole)
