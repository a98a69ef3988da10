"""The task that the data's targets ask for: what it measures, that it learns, and that it resumes."""

import signal

import pytest
import torch

import cnnlab
from cnnlab import load, module
from cnnlab.allowed import RequestError
from cnnlab.build import build_data, build_task
from cnnlab.compose import Composer
from cnnlab.registry import locate, node
from cnnlab.result import Result
from cnnlab.runs.recorded import find
from cnnlab.train import train
from cnnlab.verbs.evaluate import recomputed
from tests import isolated
from tests.test_resume import bits, folder_of, same_numbers
from tests.test_resume import train as train_here

DATA = {
    "class": "dataset=digits",
    "attributes": "dataset.targets=attributes",
    "values": "dataset.targets=values",
    "chain": "dataset=digit_chains",
}
QUICK = ["logger=none", "threads=1", "model.filters=[8]"]
# The trivial guess: the most frequent class, each attribute's more frequent side, the mean, any label.
TRIVIAL = {"class": 0.1, "attributes": 0.68, "values": 2.87, "chain": 0.11}


def judges(word):
    return locate(node("loss", word)["_target_"]).targets


def measured(task, scores, targets):
    """The metrics that a task finds for scores in two batches of unequal size."""
    task.forward = lambda images: images  # the scores themselves
    for part in (slice(0, 1), slice(1, None)):
        task.validation_step((scores[part], targets[part]), 0)
    return {name: value.item() for name, value in task.means("val").items()}


def test_a_class_is_right_where_its_score_is_highest():
    scores = torch.zeros(3, 10)
    scores[:, 2] = 1
    assert measured(module(), scores, torch.tensor([2, 2, 1]))["val/accuracy"] == pytest.approx(2 / 3)


def test_a_class_of_a_tree_is_right_where_its_probability_is_highest():
    task = module("loss=hierarchical_softmax")
    scores = torch.zeros(1, 18)
    scores[0, :2] = torch.tensor([0.0, 5.0])  # to the right half, 5..9
    found = task.loss.class_scores(scores).argmax(1)
    assert found.item() >= 5
    assert measured(task, scores.repeat(3, 1), found.repeat(3))["val/accuracy"] == 1


def test_attributes_are_right_on_the_right_side_of_0():
    task = module("dataset.targets=attributes", "loss=attribute_hinge")
    scores = torch.tensor([[1.0] * 7, [-1.0] * 7, [0.1, -0.1, 5, 5, 5, 5, 5]])
    targets = torch.tensor([[1.0] * 7, [1.0] * 7, [1.0, 1, 1, 1, 1, 1, 0]])
    assert measured(task, scores, targets)["val/accuracy"] == pytest.approx((7 + 0 + 5) / 21)


def test_rmse_is_over_all_images_and_not_the_mean_over_batches():
    task = module("dataset.targets=values", "loss=l1")
    metrics = measured(task, torch.zeros(3, 1), torch.tensor([[6.0], [0.0], [3.0]]))
    assert metrics == {"val/loss": 3.0, "val/rmse": pytest.approx(15**0.5)}  # (36 + 0 + 9) / 3


def test_chains_are_right_place_by_place():
    task = module("dataset=digit_chains", "dataset.length=2", "loss=structured_hinge")
    scores = torch.zeros(3, 20)
    scores[:, [3, 10 + 4]] = 9
    targets = torch.tensor([[3, 4], [3, 5], [4, 3]])
    assert measured(task, scores, targets)["val/accuracy"] == 0.5


@pytest.mark.parametrize("word", cnnlab.available("loss"))
def test_every_loss_learns_digits(word, tmp_path):
    kind = judges(word)
    lines = [DATA[kind], f"loss={word}", *QUICK, f"output_dir={tmp_path}", "epochs=6", "batch_size=16"]
    if kind == "chain":
        lines += ["epochs=16", "optimizer.lr=4e-3"]
    if kind == "values":
        lines += ["optimizer.lr=4e-3"]
    result = train(Composer().one(lines))
    assert result.status == "done", result.error
    if kind == "values":
        assert "test/accuracy" not in result.metrics
        assert result.metrics["test/rmse"] < TRIVIAL[kind] / 1.5
        rows = [row["val/loss"] for row in _history(folder_of(lines)) if "val/loss" in row]
        assert result.metrics["val/loss"] == min(rows) == rows[result.best_epoch - 1]
    else:
        wrong = 1 - result.metrics["test/accuracy"]
        assert wrong < (1 - TRIVIAL[kind]) / 2.5

    task = load(folder_of(lines))
    parts = build_data(Composer().one(lines))
    expected = {k: v for k, v in result.metrics.items() if k.startswith(("val/", "test/"))}
    assert recomputed(find(str(folder_of(lines)), "nowhere")) == expected
    assert task(parts.test[0][:2]).shape == (2, task.net(torch.zeros(1, *parts.input_shape)).shape[1])


def _history(folder):
    from cnnlab.history import History

    return History(folder / "history.csv").rows()


def test_the_transitions_of_chains_resume_exactly(tmp_path):
    lines = ["dataset=digit_chains", "loss=structured_hinge", *QUICK, "epochs=2", "batch_size=32"]
    lines += ["trainer.log_every_n_steps=2"]
    whole, stopped = ([*lines, f"output_dir={tmp_path / name}"] for name in ("whole", "stopped"))
    isolated.run(train_here, whole)
    with pytest.raises(isolated.Ended):
        isolated.run(train_here, stopped, (4, signal.SIGTERM))
    assert isolated.run(train_here, stopped).status == "done"
    same_numbers(folder_of(whole), folder_of(stopped))
    kept = torch.load(folder_of(whole) / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert kept["loss.decoder.transitions"].abs().min() > 0, "they are trained"


def pretrained_only(lines):
    """What a pretraining leaves of the whole task."""
    from cnnlab import pretraining
    from cnnlab.signals import Signals

    config = Composer().one(lines)
    data = build_data(config)
    task = build_task(config, data)
    path = config.folder / "start.ckpt"
    config.folder.mkdir(parents=True, exist_ok=True)
    pretraining.pretrain(config, task, data, Signals(), path)
    return {name: value.clone() for name, value in task.state_dict().items()}


@pytest.mark.parametrize("word", ["greedy", "plain"])
def test_a_pretraining_leaves_the_same_whether_made_or_read(word, tmp_path):
    lines = ["dataset=digit_chains", "loss=structured_hinge", *QUICK, f"output_dir={tmp_path}"]
    lines += [f"pretraining={word}", "pretraining.epochs=1", "batch_size=128"]
    made, read = pretrained_only(lines), pretrained_only(lines)
    assert bits(made) == bits(read)


@pytest.mark.parametrize("kind", DATA)
def test_a_loss_of_other_targets_is_refused_with_those_that_fit(kind, tmp_path):
    fitting = [word for word in cnnlab.available("loss") if judges(word) == kind]
    assert fitting
    for word in set(cnnlab.available("loss")) - {*fitting}:
        lines = [DATA[kind], f"loss={word}", *QUICK, f"output_dir={tmp_path}"]
        with pytest.raises(RequestError) as caught:
            train(Composer().one(lines))
        assert str(caught.value).startswith(f"loss={word}: takes ")
        assert str(caught.value).endswith(f" loss={', '.join(fitting)}")
        assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir()), "nothing was written"


def test_the_refusal_names_both_sides():
    with pytest.raises(RequestError) as caught:
        module("loss=hinge", "dataset.targets=attributes")
    assert str(caught.value) == (
        "loss=hinge: takes classes, dataset=digits dataset.targets=attributes has attributes; "
        "there are loss=attribute_hinge, binary_cross_entropy"
    )


def test_a_tree_without_coarse_labels_is_refused_in_one_line():
    with pytest.raises(RequestError, match=r"^loss=hierarchical_softmax loss.tree=coarse: must be balanced"):
        module("loss=hierarchical_softmax", "loss.tree=coarse")


def test_checkpoints_of_before_are_of_classes():
    from cnnlab.build import assemble

    task = assemble(Composer().one([]), [1, 8, 8], 10, None)
    assert type(task).__name__ == "Classify"
    assert task(torch.zeros(1, 1, 8, 8, dtype=torch.uint8)).shape == (1, 10)


def test_result_json_of_a_regression_has_no_accuracy(tmp_path):
    lines = [DATA["values"], "loss=l2", *QUICK, f"output_dir={tmp_path}", "trainer.max_steps=1"]
    train(Composer().one(lines))
    result = Result.read(folder_of(lines))
    assert result is not None
    assert {name for name in result.metrics if name.startswith("test/")} == {"test/loss", "test/rmse"}
