"""pretraining=greedy and pretraining=plain: where a training starts from."""

import signal

import pytest
import torch

from cnnlab import pretraining
from cnnlab.__main__ import command
from cnnlab.compose import Composer
from cnnlab.train import train
from tests import isolated
from tests.test_resume import folder_of, same_numbers
from tests.test_resume import train as train_in_process

QUICK = ["model.filters=[8]", "batch_size=128", "threads=1", "logger=none", "epochs=1"]  # 11 steps an epoch


def lines_in(folder, *lines: str) -> list[str]:
    return [*QUICK, *lines, f"output_dir={folder}"]


def weights(folder, name: str) -> dict[str, torch.Tensor]:
    checkpoint = torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)
    return checkpoint.get("state_dict", checkpoint)


def test_plain_starts_from_the_weights_that_a_plain_training_ends_with(tmp_path):
    lines = lines_in(tmp_path, "conv=decoupled_tanh", "pretraining=plain", "pretraining.epochs=2")
    assert train(Composer().one(lines)).status == "done"
    plain = lines_in(tmp_path, "epochs=2")
    train(Composer().one(plain))
    expected, started = weights(folder_of(plain), "last"), weights(folder_of(lines), "start")
    assert started.keys() == {name.removeprefix("net.") for name in expected if name.startswith("net.")}
    assert all(torch.equal(tensor, expected[f"net.{name}"]) for name, tensor in started.items())
    assert not torch.equal(
        weights(folder_of(lines), "last")["net.features.0.weight"], started["features.0.weight"]
    )


def test_greedy_trains_one_convolution_after_the_other(tmp_path, monkeypatch):
    stages, fit = [], pretraining._fit

    def spied(config, task, data, epochs, signals, frozen=()):
        names = {parameter: name for name, parameter in owner.named_parameters()}
        before = {name: parameter.detach().clone() for parameter, name in names.items()}
        fit(config, task, data, epochs, signals, frozen)
        stages.append({name for p, name in names.items() if not torch.equal(p, before[name])})

    class Spy(pretraining.Greedy):
        def __call__(self, config, task, data, signals):
            nonlocal owner
            owner = task.net
            super().__call__(config, task, data, signals)
            assert all(parameter.requires_grad for parameter in owner.parameters())

    owner: torch.nn.Module = torch.nn.Identity()
    monkeypatch.setattr(pretraining, "_fit", spied)
    monkeypatch.setattr(pretraining, "Greedy", Spy)
    Spy.__module__ = pretraining.__name__
    lines = lines_in(tmp_path, "pretraining=greedy", "model.batch_norm=true", "activation=prelu")
    assert train(Composer().one(lines)).status == "done"
    layers = [{name.split(".")[1] for name in stage} for stage in stages]
    assert layers == [
        {"0", "1", "2"},
        {"3", "4", "5", "1"},
    ]  # conv, norm, prelu; the last with the classifier


def test_greedy_leaves_the_statistics_of_frozen_norms_alone(tmp_path, monkeypatch):
    seen, fit = [], pretraining._fit

    def spied(config, task, data, epochs, signals, frozen=()):
        norms = [module for module in frozen if isinstance(module, torch.nn.BatchNorm2d)]
        before = [norm.running_mean.clone() for norm in norms]
        fit(config, task, data, epochs, signals, frozen)
        seen.append(all(torch.equal(n.running_mean, mean) for n, mean in zip(norms, before, strict=True)))
        assert len(norms) == len(seen) - 1

    monkeypatch.setattr(pretraining, "_fit", spied)
    train(Composer().one(lines_in(tmp_path, "pretraining=greedy", "model.batch_norm=true")))
    assert seen == [True, True]


@pytest.mark.parametrize("step", [3, 30])
@pytest.mark.parametrize("word", ["greedy", "plain"])
def test_killed_in_or_after_the_pretraining_it_ends_with_the_same_numbers(word, step, tmp_path):
    several = ["conv=decoupled_ball", f"pretraining={word}", "pretraining.epochs=1", "epochs=3"]
    whole, killed = (lines_in(tmp_path / name, *several) for name in ("whole", "killed"))
    isolated.run(train_in_process, whole)
    with pytest.raises(isolated.Ended):
        isolated.run(train_in_process, killed, (step, signal.SIGKILL))
    started = (folder_of(killed) / "checkpoints" / "start.ckpt").exists()
    assert started == (step == 30), "step 3 is one of the pretraining, step 30 none"
    assert isolated.run(train_in_process, killed).status == "done"
    same_numbers(folder_of(whole), folder_of(killed))


def test_a_signal_in_the_pretraining_ends_the_run_as_interrupted(tmp_path):
    lines = lines_in(tmp_path, "pretraining=greedy")
    with pytest.raises(isolated.Ended) as ended:
        isolated.run(train_in_process, lines, (3, signal.SIGTERM))
    assert ended.value.exitcode == 143
    assert isolated.run(train_in_process, lines).status == "done"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["conv=orthogonal", "pretraining=plain"], "OrthogonalConv2d has no features.0.weight of its shape"),
        (["conv=random", "pretraining=plain"], "RandomConv2d has no features.0.weight of its shape to train"),
        (["model=linear", "pretraining=greedy"], "LinearClassifier has none"),
        (["pretraining=plain", "pretraining.epochs=0"], "must be a whole number >= 1, got 0"),
    ],
)
def test_what_cannot_be_pretrained_is_refused_in_one_line(lines, said, tmp_path, capsys):
    assert command([*lines, f"output_dir={tmp_path}"]) == 2
    error = capsys.readouterr().err
    assert said in error and error.startswith("pretraining=") and error.count("\n") == 1
    assert not list(tmp_path.iterdir())
