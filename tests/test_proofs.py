"""What the project claims of itself, shown on real data: minutes each, `make proofs`."""

import statistics
import time
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from cnnlab import available
from cnnlab import train as train_module
from cnnlab.build import build_data, build_task
from cnnlab.compose import Composer
from cnnlab.config import Config
from cnnlab.history import History
from cnnlab.registry import PACKAGE
from cnnlab.result import Result
from cnnlab.train import train

CIFAR10 = PACKAGE.parent.parent / "shared" / "data" / "cifar10"
REFERENCE = Path(__file__).parent / "reference"
SINGLA = [
    "experiment=singla",
    f"dataset.path={CIFAR10}",
    "logger=none",
    "epochs=1",
    "trainer.limit_train_batches=100",
]

needs_cifar10 = pytest.mark.skipif(not CIFAR10.is_dir(), reason=f"needs CIFAR-10 (JPEG) in {CIFAR10}")


def speed(tmp_path: Path, *lines: str) -> float:
    """Training images/s of a run of 100 batches."""
    result = train(Composer().one([*SINGLA, f"output_dir={tmp_path}", "resume=false", *lines]))
    assert result.images_per_s is not None
    return result.images_per_s


def bare_speed(config: Config) -> float:
    """Images/s of a loop written by hand: the same network, precision and memory format."""
    data = build_data(config)
    net = build_task(config, data).net.train()
    images = data.train[0].float().div(255).contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-4, fused=True)
    order = torch.randperm(len(images))[:12800].split(128)
    began = time.perf_counter()
    for index in order:
        with torch.autocast("cpu", torch.bfloat16, enabled=train_precision(config) == "bf16-mixed"):
            loss = F.cross_entropy(net(images[index]), data.train[1][index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return 12800 / (time.perf_counter() - began)


def train_precision(config: Config) -> str:
    from cnnlab.trainer import best_precision

    return best_precision(config.tree["trainer"]["accelerator"])


@pytest.mark.slow
@needs_cifar10
def test_training_is_as_fast_as_a_loop_written_by_hand(tmp_path):
    config = Composer().one(SINGLA)
    ratios = [speed(tmp_path) / bare_speed(config) for _ in range(5)]
    print(f"images/s against a bare loop: {sorted(ratios)}")
    assert statistics.median(ratios) >= 0.9


@pytest.mark.slow
@needs_cifar10
def test_the_orthogonal_kernel_costs_little_time(tmp_path):
    ratios = [speed(tmp_path) / speed(tmp_path, "conv=orthogonal") for _ in range(5)]
    print(f"time of orthogonal against standard: {sorted(ratios)}")
    assert statistics.median(ratios) <= 1.15


@pytest.mark.slow
@pytest.mark.parametrize("word", available("conv"))
def test_training_a_convolution_beats_freezing_it(word, tmp_path, monkeypatch):
    def frozen(config, data, **how):
        task = build_task(config, data, **how)
        for layer in task.convs.values():
            layer.requires_grad_(False)
        return task

    def accuracy(kind: str) -> float:
        lines = ["logger=none", f"conv={word}", f"output_dir={tmp_path / kind}"]
        return statistics.mean(
            train(config).metrics["test/accuracy"] for config in Composer().sweep([*lines, "seed=range(3)"])
        )

    trained = accuracy("trained")
    monkeypatch.setattr(train_module, "build_task", frozen)
    kept = accuracy("frozen")
    print(f"conv={word}: trained {trained:.4f}, frozen {kept:.4f}, digits, 3 seeds")
    assert trained > kept


def reference(name: str) -> tuple[Result, list[dict[str, float]]]:
    result = Result.read(REFERENCE / name)
    assert result is not None and result.status == "done"
    return result, History(REFERENCE / name / "history.csv").rows()


def test_the_committed_results_show_what_singla_saw():
    """Weight 0.1 is about as good as 0 and the loss vanishes; the hard constraint is clearly worse."""
    free, free_rows = reference("standard")
    weighted, weighted_rows = reference("ortho_weight")
    hard, _ = reference("orthogonal")
    accuracy = {
        name: r.metrics["test/accuracy"] for name, r in (("free", free), ("w", weighted), ("hard", hard))
    }
    assert accuracy["free"] == pytest.approx(0.69, abs=0.02)
    assert accuracy["w"] == pytest.approx(accuracy["free"], abs=0.02)
    assert accuracy["hard"] == pytest.approx(0.56, abs=0.03)
    assert free_rows[0]["ortho/loss"] == pytest.approx(37, abs=4)
    assert free.metrics["ortho/loss"] > free_rows[0]["ortho/loss"] + 1
    assert weighted_rows[0]["ortho/loss"] == free_rows[0]["ortho/loss"]
    assert weighted.metrics["ortho/loss"] < 0.1
    assert hard.metrics["conv/violation"] < 1e-5
