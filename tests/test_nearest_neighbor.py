"""The nearest neighbours are exact, whatever the arithmetic; a run of them is a run like any other."""

import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from cnnlab import load
from cnnlab.allowed import RequestError
from cnnlab.build import build_data, build_task
from cnnlab.compose import Composer
from cnnlab.model import neighbors
from cnnlab.model.nearest_neighbor import NearestNeighbor
from cnnlab.model.neighbors import nearest
from cnnlab.train import train
from cnnlab.verbs.evaluate import main as evaluate

LINES = ["model=nearest_neighbor", "logger=none", "threads=1"]


def slow(queries, points, k, metric):
    """Each distance by its definition in float64; of equals the first."""
    difference = (queries.double()[:, None] - points.double()).abs()
    far = difference.square().sum(2) if metric == "l2" else difference.sum(2)
    return far.argsort(dim=1, stable=True)[:, :k]


@pytest.mark.parametrize("metric", ["l2", "l1"])
@pytest.mark.parametrize("offset", [0, 1000])  # far from 0 the squares cancel
@pytest.mark.parametrize("k", [1, 7, 300])
def test_neighbours_are_those_of_the_definition(metric, offset, k):
    generator = torch.Generator().manual_seed(k)
    queries, points = (offset + torch.randn(n, 20, generator=generator) for n in (40, 300))
    assert torch.equal(nearest(queries, points, k, metric), slow(queries, points, k, metric))


@pytest.mark.parametrize("metric", ["l2", "l1"])
def test_of_images_equally_far_the_earlier_is_nearer(metric):
    generator = torch.Generator().manual_seed(0)
    points = torch.randint(2, (500, 5), generator=generator).float()  # 32 points, each some 16 times
    queries = torch.randint(2, (50, 5), generator=generator).float()
    for k in (1, 3, 40):
        assert torch.equal(nearest(queries, points, k, metric), slow(queries, points, k, metric))


def test_neighbours_are_exact_where_float32_cannot_tell_them_apart():
    points = torch.full((200, 4), 4096.0)
    points[:, 0] += torch.randperm(200, generator=torch.Generator().manual_seed(0)) / 1024
    queries = torch.full((1, 4), 4096.0)
    assert torch.equal(nearest(queries, points, 5, "l2"), slow(queries, points, 5, "l2"))


def test_chunks_change_nothing(monkeypatch):
    queries, points = torch.randn(30, 12), torch.randn(100, 12)
    whole = {metric: nearest(queries, points, 4, metric) for metric in ("l2", "l1")}
    monkeypatch.setattr(neighbors, "HELD", 700)
    for metric, expected in whole.items():
        assert torch.equal(nearest(queries, points, 4, metric), expected)


@pytest.mark.parametrize("metric", ["l2", "l1"])
def test_classes_are_sklearns(metric):
    pixels, labels = load_digits(return_X_y=True)
    pixels = torch.tensor(pixels / 16 + 0.01 * torch.rand(1797, 64).numpy(), dtype=torch.float32)  # no ties
    for k in (1, 3, 10):
        net = NearestNeighbor((1, 8, 8), 10, k=k, metric=metric)
        net.memorize(pixels[:1000].view(-1, 1, 8, 8), torch.tensor(labels[:1000]))
        scores = net(pixels[1000:].view(-1, 1, 8, 8))
        theirs = KNeighborsClassifier(
            k, algorithm="brute", metric="manhattan" if metric == "l1" else "euclidean"
        )
        shares = torch.tensor(theirs.fit(pixels[:1000].numpy(), labels[:1000]).predict_proba(pixels[1000:]))
        first, second = shares.topk(2).values.T
        untied = first > second  # of tied classes scikit-learn takes the first, not the nearest
        assert untied.sum() > 700
        assert torch.equal(scores.argmax(1)[untied], shares.argmax(1)[untied])
        assert torch.equal(scores.exp().sub(0.0999).floor(), (shares * k).round().float())  # the votes


def test_a_tie_of_votes_goes_to_the_class_of_the_nearest():
    net = NearestNeighbor((1, 1, 1), 3, k=4)
    net.memorize(torch.tensor([1.0, 2.0, 3.0, 4.0, 9.0]).view(5, 1, 1, 1), torch.tensor([2, 0, 0, 2, 1]))
    assert net(torch.zeros(1, 1, 1, 1)).argmax().item() == 2
    assert net(torch.full((1, 1, 1, 1), 2.4)).argmax().item() == 0


def test_the_best_k_on_validation_is_kept_and_of_equals_the_smallest():
    net = NearestNeighbor((1, 1, 1), 2, k=[3, 1, 2, 5])
    net.memorize(torch.arange(5.0).view(5, 1, 1, 1), torch.tensor([0, 1, 1, 1, 0]))
    at = torch.tensor([0.1, 0.2, 4.2]).view(3, 1, 1, 1)
    assert net.choose_k([(at[:1], torch.tensor([1])), (at[1:], torch.tensor([1, 1]))]) == {
        1: 0,
        2: 0,
        3: 1,
        5: 1,
    }
    assert net.k == 3
    assert net.choose_k([(at, torch.tensor([0, 0, 0]))])[1] == 1 and net.k == 1


def test_a_run_memorises_chooses_and_is_a_run_like_any_other(tmp_path, caplog, capsys):
    lines = [*LINES, "model.k=[1,3,20]", "optimizer=sgd", f"output_dir={tmp_path}"]
    config = Composer().one(lines)
    result = train(config)
    assert result.status == "done" and result.params == 0 and result.epochs_done == 0
    assert result.metrics["test/accuracy"] > 0.97
    assert "model=nearest_neighbor takes no steps: optimizer=sgd changes nothing" in caplog.text
    assert sorted(path.name for path in (config.folder / "checkpoints").iterdir()) == ["best.ckpt"]

    task, data = load(config.folder), build_data(config)
    images, labels = data.test
    assert (task(images).argmax(1) == labels).float().mean() == pytest.approx(result.metrics["test/accuracy"])
    assert torch.equal(task.net.labels, data.train[1]) and task.net.k in (1, 3, 20)
    again = train(Composer().one([*lines, "resume=false"]))
    assert again.metrics == result.metrics
    assert evaluate([str(config.folder)]) == 0, capsys.readouterr().out


def test_memory_is_of_preprocessed_training_images_alone():
    config = Composer().one([*LINES, "preprocessing=pca", "preprocessing.components=3"])
    data = build_data(config)
    net = build_task(config, data).net
    assert net.images.shape == (1294, 64) and torch.linalg.matrix_rank(net.images) == 3


@pytest.mark.parametrize(
    ("knob", "message"),
    [
        ("model.k=1295", "model.k=1295: must be at most 1294, the training images"),
        ("model.k=[1,9999]", "must be at most 1294"),
        ("model.k=0", "model.k=0: must be a whole number >= 1"),
        ("model.k=[]", "or a list of some, got"),
        ("model.k=1.5", "must be a whole number >= 1"),
        ("model.metric=l3", "must be one of l2, l1"),
    ],
)
def test_a_mistake_is_one_line(knob, message, tmp_path):
    with pytest.raises(RequestError, match=message):
        train(Composer().one([*LINES, knob, f"output_dir={tmp_path}"]))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
def test_other_precisions_vote_too(precision, tmp_path):
    lines = [f"trainer.precision={precision}", "model=nearest_neighbor", "logger=none", "threads=1"]
    result = train(Composer().one([*lines, f"output_dir={tmp_path}"]))
    assert result.status == "done" and result.metrics["test/accuracy"] > 0.9


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["dataset.targets=values", "loss=l2"], "takes classes, dataset=digits dataset.targets=values"),
        (["pretraining=greedy"], "pretraining=greedy: model=nearest_neighbor takes no steps"),
    ],
)
def test_what_can_not_be_learnt_by_heart_is_one_line(lines, message):
    config = Composer().one(["model=nearest_neighbor", *lines])
    with pytest.raises(RequestError, match=message):
        build_task(config, build_data(config))


def test_labels_that_are_not_one_class_an_image_are_refused():
    net = NearestNeighbor((1, 1, 1), 2)
    for labels in (torch.zeros(3, 2), torch.zeros(3), torch.tensor([0, 1, 2])):
        with pytest.raises(ValueError, match="neighbours vote for one class an image"):
            net.memorize(torch.zeros(3, 1, 1, 1), labels)
