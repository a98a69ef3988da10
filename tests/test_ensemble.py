"""Ensembles: members found and refused, and accuracies against an independent computation."""

import pytest
import torch

import cnnlab
from cnnlab.allowed import RequestError
from cnnlab.build import build_data
from cnnlab.compose import Composer
from cnnlab.result import Result
from cnnlab.runs.ensemble import judged, members
from cnnlab.train import train
from cnnlab.verbs.evaluate import main
from tests.recording import record

QUICK = ["logger=none", "epochs=2", "batch_size=128", "threads=1", "model.filters=[4]", "optimizer.lr=0.01"]


def trained(tmp_path, *lines):
    config = Composer().one([*QUICK, f"output_dir={tmp_path}", *lines])
    result = train(config)
    assert result.status == "done", result.error
    return config.folder


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Three seeds that differ in all that may differ, and what their networks get right."""
    tmp_path = tmp_path_factory.mktemp("sweep")
    others = ([], ["conv=decoupled_tanh", "batch_size=32"], ["preprocessing=unit_range", "epochs=1"])
    return [trained(tmp_path, f"seed={seed}", *lines) for seed, lines in enumerate(others)]


def mean_of_softmax(folders, part):
    """Accuracies of each and of all, image by image, by cnnlab.load alone."""
    images, labels = getattr(build_data(Composer().one(QUICK)), part)
    nets = [cnnlab.load(folder) for folder in folders]
    single, together = [0] * len(nets), 0
    with torch.no_grad():
        for image, label in zip(images, labels.tolist(), strict=True):
            probabilities = [torch.exp(net(image[None]).double()[0]) for net in nets]
            probabilities = [p / p.sum() for p in probabilities]
            single = [n + (int(p.argmax()) == label) for n, p in zip(single, probabilities, strict=True)]
            together += int(sum(probabilities).argmax()) == label
    return [count / len(labels) for count in single], together / len(labels)


def test_accuracies_are_those_of_the_mean_probability(tmp_path):
    folders = [trained(tmp_path, f"seed={seed}", "trainer.precision=32-true") for seed in (0, 1, 2)]
    found = judged(members([str(folder) for folder in folders]))
    for part in ("val", "test"):
        single, together = mean_of_softmax(folders, part)
        assert [accuracies[part] for accuracies in found.members] == pytest.approx(single, abs=1e-12)
        assert found.ensemble[part] == pytest.approx(together, abs=1e-12)
    assert len({accuracies["test"] for accuracies in found.members}) > 1, "else nothing was averaged"


def test_each_member_is_as_its_run_recorded_it_however_it_was_trained(sweep):
    found = judged(members([str(folder) for folder in sweep]))
    for folder, accuracies in zip(sweep, found.members, strict=True):
        metrics = Result.read(folder).metrics
        assert accuracies["val"] == pytest.approx(metrics["val/accuracy"], abs=1e-7)
        assert accuracies["test"] == pytest.approx(metrics["test/accuracy"], abs=1e-7)


def test_the_best_on_validation_are_taken_whatever_the_test_set_says(tmp_path):
    scores = {"a": (0.7, 0.5, 0.9), "b": (0.9, 0.5, 0.1), "c": (0.8, 0.5, 0.95), "d": (0.8, 0.4, 0.2)}
    ids = {}
    for seed, (name, (accuracy, loss, test)) in enumerate(scores.items()):
        metrics = {"val/accuracy": accuracy, "val/loss": loss, "test/accuracy": test}
        folder = record(tmp_path, f"seed={seed}", metrics=metrics)
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints" / "best.ckpt").touch()
        ids[folder.name] = name
    for top, best in ((2, ["b", "d"]), (3, ["b", "d", "c"])):
        assert [ids[member.run.folder.name] for member in members([str(tmp_path)], top=top)] == best
    assert len(members([str(tmp_path)])) == 4
    failed = record(tmp_path, "seed=9", status="failed")
    assert len(members([str(tmp_path)])) == 4, "of a folder, those that are done"
    with pytest.raises(RequestError, match="must be done to be a member, its status is failed"):
        members([str(failed), *map(str, tmp_path.glob("*/seed=1*"))])


def kept(folder):
    """A recorded run with weights that nobody looks into."""
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "best.ckpt").touch()
    return folder


def test_a_run_kept_aside_has_no_second_vote(tmp_path):
    times = {"aside": "2026-11-20T00:00:00+00:00", "new": "2026-11-21T00:00:00+00:00"}
    first = kept(record(tmp_path, "seed=0", started=times["aside"]))
    aside = first.rename(first.with_name(f"{first.name}.1"))
    new = kept(record(tmp_path, "seed=0", started=times["new"]))
    other = kept(record(tmp_path, "seed=1"))
    assert [member.run.folder for member in members([str(tmp_path)])] == sorted([new, other])
    assert len(members([str(aside), str(new)])) == 2, "named one by one, both are meant"


def test_members_may_have_loaded_their_data_each_in_its_way(tmp_path):
    lines = ["dataset=hub", "dataset.path=x"]
    for seed, in_memory in enumerate(("true", "false")):
        kept(record(tmp_path, *lines, f"seed={seed}", f"dataset.in_memory={in_memory}"))
    assert len(members([str(tmp_path)])) == 2


def test_a_run_alone_gives_its_checkpoints_each_network_once(tmp_path):
    folder = trained(tmp_path, "epochs=3")
    best = folder / "checkpoints" / "best.ckpt"
    kept = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    kept["global_step"] = 11
    torch.save(kept, folder / "checkpoints" / "epoch-1.ckpt")
    torch.save(torch.load(best, weights_only=True), folder / "checkpoints" / "same.ckpt")
    steps = [
        torch.load(member.run.folder / member.checkpoint, weights_only=True)["global_step"]
        for member in members([str(folder)])
    ]
    assert steps == sorted(set(steps)) and steps[0] == 11 and len(steps) >= 2
    found = judged(members([str(folder)]))
    assert len(found.members) == len(steps)


def test_the_command_shows_each_and_all(sweep, capsys):
    assert main([str(sweep[0].parent), "ensemble=true"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in shown[1:4]] == [folder.name[-10:] for folder in sorted(sweep)]
    assert "ensemble of 3" in shown[-1]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["dataset.split_seed=1"], "dataset.split_seed=0 and dataset.split_seed=1"),
        (["dataset=fashion_mnist"], "have dataset._target_="),
        (["dataset.folds=5"], "have dataset.folds=- and dataset.folds=5"),
    ],
)
def test_members_that_share_no_split_are_refused(sweep, tmp_path, lines, said):
    stranger = record(tmp_path, *lines)
    with pytest.raises(RequestError) as refused:
        members([str(sweep[0]), str(stranger)])
    assert said in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ensemble=true"], "evaluate: takes one RUN or more"),
        (["x", "ensemble=3"], "ensemble=3: must be true or false, got 3"),
        (["x", "ensemble=true", "top=1"], "top=1: must be a whole number >= 2, got 1"),
        (["x", "ensemble=true", "top=3,4"], "top=3,4: must be one value"),
        (["x", "trusted=[a],[b]"], "trusted=[a],[b]: must be one value"),
        (["x", "top=2"], "top=2: picks the members of an ensemble, which needs ensemble=true"),
        (["/nope", "ensemble=true"], "/nope: neither a folder nor an id"),
        ([".", "ensemble=true"], "ensemble: needs two members or more, got 0 of ."),
    ],
)
def test_a_mistake_gets_one_line(tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError) as refused:
        main(arguments)
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_what_is_no_class_has_no_ensemble(tmp_path):
    lines = ["dataset.targets=attributes", "loss=binary_cross_entropy"]
    folders = [str(trained(tmp_path, *lines, f"seed={seed}")) for seed in (0, 1)]
    with pytest.raises(RequestError, match="takes classes, dataset=digits has attributes"):
        judged(members(folders))
