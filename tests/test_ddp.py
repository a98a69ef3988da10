"""trainer=ddp: several processes train one run, to the numbers of a single one."""

import multiprocessing
import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from cnnlab.__main__ import command
from cnnlab.averaging import NoAveraging
from cnnlab.compose import Composer
from cnnlab.history import History
from cnnlab.parallel import distributed
from cnnlab.result import Result
from cnnlab.signals import Interrupted
from cnnlab.train import train as train_config
from tests import isolated
from tests.test_resume import folder_of, same_numbers

# 1294 training images: the last batch of an epoch has one, and a process none.
LINES = ["batch_size=431", "model.filters=[8]", "epochs=3", "logger=none", "threads=1"]
LINES += ["trainer.accelerator=cpu", "trainer.precision=32-true", "trainer.log_every_n_steps=2"]
STEPS = 12


def in_ranks(function, size, *arguments):
    """What the function returns in each of so many processes, given rank, size and a meeting place."""
    with ThreadPoolExecutor(size) as pool:
        ranks = [pool.submit(isolated.run, function, rank, size, *arguments) for rank in range(size)]
    return [rank.result() for rank in ranks]


def scores_of_batches(rank, size, meeting):
    """Parts, gathered scores and the gradient of a weight, for batches of 1 to 7 examples."""
    found = []
    with distributed.joined(rank, size, meeting):
        for count in range(1, 8):
            weight = torch.ones(2, dtype=torch.float64, requires_grad=True)
            images = torch.arange(2.0 * count, dtype=torch.float64).view(count, 2)
            mine = distributed.part(images)
            scores = distributed.whole(mine * weight, count)
            scores.square().sum().backward()
            used = len(range(rank, count, size))
            found.append((mine[:used].tolist(), scores.tolist(), weight.grad.tolist()))
    return found


@pytest.mark.parametrize("size", [2, 3])
def test_shards_are_disjoint_and_scores_and_gradients_are_the_batches(size, tmp_path):
    ranks = in_ranks(scores_of_batches, size, str(tmp_path / "meeting"))
    for count, found in enumerate(zip(*ranks, strict=True), start=1):
        images = torch.arange(2.0 * count).view(count, 2)
        shards = [row for mine, _, _ in found for row in mine]
        assert sorted(shards) == images.tolist()
        assert all(scores == images.tolist() for _, scores, _ in found)
        mean = torch.tensor([gradient for *_, gradient in found]).mean(0)
        assert mean.tolist() == pytest.approx((2 * images.square()).sum(0).tolist())


def normed(rank, size, count, meeting):
    """Output, gradients and statistics of batch norms; size 0: torch's, of the whole batch."""
    torch.manual_seed(0)
    images = torch.randn(count, 3, 4, 4) * 3 + 100  # far from 0, where E[x^2] - E[x]^2 has lost all digits
    aim = torch.randn(count, 3, 4, 4)
    net = torch.nn.Sequential(torch.nn.BatchNorm2d(3), torch.nn.BatchNorm2d(3, momentum=None, affine=False))
    torch.nn.init.uniform_(net[0].weight)
    images.requires_grad_()
    if size == 0:
        output = net(images)
        (output * aim).sum().backward()
    else:
        with distributed.joined(rank, size, meeting):
            distributed.share_batch_norms(net)
            output = distributed.whole(net(distributed.part(images)), count)
            (output * aim).sum().backward()
    gradients = [images.grad, *(parameter.grad for parameter in net.parameters())]
    return [
        [tensor.tolist() for tensor in found] for found in ([output], gradients, net.state_dict().values())
    ]


@pytest.mark.parametrize("count", [5, 1])
def test_batch_norms_are_those_of_the_whole_batch(count, tmp_path):
    expected = normed(0, 0, count, "")
    ranks = in_ranks(normed, 2, count, str(tmp_path / "meeting"))
    for tensors in zip(expected[1], *(gradients for _, gradients, _ in ranks), strict=True):
        one, *several = map(torch.tensor, tensors)
        torch.testing.assert_close(torch.stack(several).mean(0), one, rtol=1e-4, atol=1e-4)
    for output, _, state in ranks:
        for mine, one in zip(output + state, expected[0] + expected[2], strict=True):
            torch.testing.assert_close(torch.tensor(mine), torch.tensor(one), rtol=1e-4, atol=1e-4)


def train(lines: list[str]) -> Result:
    return train_config(Composer().one(lines))


def metrics_of(result: Result) -> dict[str, float]:
    return {key: value for key, value in result.metrics.items() if not key.startswith("time/")}


@pytest.mark.parametrize(
    "kind",
    [
        "conv=decoupled_tanh activation=crelu ortho_weight=0.1 augmentation=crop_flip optimizer=nesterov",
        "model.batch_norm=true averaging=ema trainer.gradient_clip_val=0.5 trainer.accumulate_grad_batches=2",
        "conv=kmeans loss=hinge pretraining=greedy monitor=layers optimizer=sgd",
    ],
)
def test_two_processes_train_what_one_does(kind, tmp_path):
    lines = [*LINES, "trainer.precision=64-true", *kind.split(), f"output_dir={tmp_path}"]
    single = isolated.run(train, [*lines, "trainer=cpu"])
    double = train([*lines, "trainer=ddp", "trainer.devices=2"])
    assert (single.status, double.status) == ("done", "done"), double.error
    assert metrics_of(double) == pytest.approx(metrics_of(single), rel=1e-6)
    assert double.best_epoch == single.best_epoch
    one, two = (folder_of([*lines, f"trainer={word}"]) for word in ("cpu", "ddp"))
    assert sorted(p.name for p in one.rglob("*")) == sorted(p.name for p in two.rglob("*"))
    rows = [[(row["step"], row["epoch"]) for row in History(f / "history.csv").rows()] for f in (one, two)]
    assert rows[0] == rows[1]
    weights = [
        torch.load(f / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for f in (one, two)
    ]
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-6, atol=1e-7)


class Strike(NoAveraging):
    """In a step of a rank, once, sends a signal: to itself, or to the process that watches."""

    def __init__(
        self, *, once: str = "", rank: int = 0, step: int = 0, signum: int = 0, watcher: bool = False
    ):
        self.once, self.rank, self.step = Path(once), rank, step
        self.signum, self.watcher = signum, watcher

    def on_train_batch_start(self, trainer, task, batch, batch_idx):
        if trainer.global_step != self.step or distributed.rank() != self.rank or self.once.exists():
            return
        self.once.touch()
        parent = multiprocessing.parent_process()
        os.kill(parent.pid if self.watcher and parent is not None else os.getpid(), self.signum)
        if self.watcher and self.signum == signal.SIGKILL:
            time.sleep(60)  # a process that is killed takes a moment to be gone, and the rest is a few steps


DDP = [*LINES, "trainer=ddp", "trainer.devices=2", "model.dropout=0.2", "augmentation=crop_flip"]


def striking(tmp_path: Path, **knobs: object) -> list[str]:
    lines = ["trusted=[tests]", "averaging._target_=tests.test_ddp.Strike", f"averaging.once={tmp_path}/once"]
    return [*DDP, *lines, *(f"averaging.{k}={v}" for k, v in knobs.items()), f"output_dir={tmp_path}"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run of two processes that nothing disturbed."""
    lines = [*DDP, f"output_dir={tmp_path_factory.mktemp('whole')}"]
    assert train(lines).status == "done"
    return folder_of(lines)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_killed_fails_the_run_and_it_resumes(rank, whole, tmp_path):
    lines = striking(tmp_path, rank=rank, step=6, signum=int(signal.SIGKILL))
    result = train(lines)
    assert result.status == "failed"
    assert result.error == f"rank {rank} of 2: killed by SIGKILL (out of memory?)"
    assert Result.read(folder_of(lines)) == result
    assert train(lines).status == "done"
    same_numbers(whole, folder_of(lines))


class Late(Strike):
    """Strikes as the test phase ends, when nothing is left to share."""

    def on_train_batch_start(self, trainer, task, batch, batch_idx):
        pass

    def on_test_end(self, trainer, task):
        if distributed.rank() == self.rank and not self.once.exists():
            self.once.touch()
            os.kill(os.getpid(), self.signum)


def test_a_leader_killed_at_the_very_end_fails_the_run(whole, tmp_path):
    lines = striking(tmp_path, _target_="tests.test_ddp.Late", signum=int(signal.SIGKILL))
    result = train(lines)
    assert (result.status, result.error) == ("failed", "rank 0 of 2: killed by SIGKILL (out of memory?)")
    assert train(lines).status == "done"
    same_numbers(whole, folder_of(lines))


def test_killed_altogether_it_resumes(whole, tmp_path):
    lines = striking(tmp_path, rank=1, step=9, signum=int(signal.SIGKILL), watcher="true")
    with pytest.raises(isolated.Ended):
        isolated.run(train, lines)
    left = Result.read(folder_of(lines))
    assert left is not None and left.status == "running"
    assert train(lines).status == "done"
    same_numbers(whole, folder_of(lines))


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_all_ranks_after_a_checkpoint(signum, whole, tmp_path):
    lines = striking(tmp_path, rank=1, step=5, signum=int(signum), watcher="true")
    with pytest.raises(Interrupted) as stopped:
        train(lines)
    assert stopped.value.exit_code == 128 + signum
    left = Result.read(folder_of(lines))
    assert left is not None and left.status == "interrupted"
    assert torch.load(folder_of(lines) / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] >= 5
    assert train(lines).status == "done"
    same_numbers(whole, folder_of(lines))


def test_a_signal_to_one_rank_stops_all(whole, tmp_path):
    lines = striking(tmp_path, rank=1, step=5, signum=int(signal.SIGTERM))
    with pytest.raises(Interrupted) as stopped:
        train(lines)
    assert stopped.value.exit_code == 128 + signal.SIGTERM
    assert train(lines).status == "done"
    same_numbers(whole, folder_of(lines))


def test_a_run_of_two_processes_goes_on_in_one(tmp_path):
    lines = striking(tmp_path, rank=1, step=6, signum=int(signal.SIGKILL))
    lines.remove("model.dropout=0.2")
    assert train(lines).status == "failed"
    alone = [*lines, "trainer.devices=1"]
    assert folder_of(alone) == folder_of(lines)
    mixed = isolated.run(train, alone)
    single = isolated.run(train, [*alone, "resume=false"])
    assert mixed.status == single.status == "done"
    assert metrics_of(mixed) == pytest.approx(metrics_of(single), abs=1e-5)


def test_a_loss_that_is_not_finite_is_found_by_all_and_told_once(tmp_path):
    result = train([*DDP, "optimizer=sgd", "optimizer.lr=1e30", f"output_dir={tmp_path}"])
    assert result.status == "failed"
    assert re.fullmatch("the loss is (nan|inf) at step [0-9]+; it began in .*", result.error)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("model=nearest_neighbor", "takes no steps"),
        ("optimizer=lbfgs batch_size=1294", "is for one process"),
        ("conv=decoupled_tanh conv.radius=relative", "whole batches"),
        ("trainer.max_time=00:00:01:00", "epochs=N"),
        ("trainer.devices=0", ">= 1"),
        ("trainer.devices=[0,1]", ">= 1"),
        ("dataset=fashion_mnist dataset.root=/nope dataset.download=false", "/nope"),
    ],
)
def test_what_processes_cannot_share_is_one_line(line, said, tmp_path, capsys):
    assert command(["trainer=ddp", "trainer.accelerator=cpu", *line.split(), f"output_dir={tmp_path}"]) == 2
    out, err = capsys.readouterr()
    assert err.count("\n") == 1 and said in err and not out, err
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
