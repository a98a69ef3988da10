"""A run killed at any step and asked for again ends with the numbers of one that was never stopped."""

import itertools
import os
import random
import signal
from pathlib import Path

import pytest
import torch

from cnnlab import available
from cnnlab.allowed import RequestError
from cnnlab.compose import Composer
from cnnlab.history import History
from cnnlab.result import Result
from tests import isolated

# Everything that has a state of its own or draws at random, together.
EVERYTHING = [
    "conv=decoupled_tanh",
    "conv.radius=relative",
    "activation=crelu",
    "model.batch_norm=true",
    "model.dropout=0.3",
    "augmentation=crop_flip",
    "model.filters=[8]",
    "epochs=3",
    "batch_size=128",  # 11 steps an epoch
    "trainer.log_every_n_steps=4",
    "logger=csv",
    "threads=1",
    "ortho_weight=0.1",
]
STEPS = 33


def train(lines: list[str], strike: tuple[int, int] | None = None) -> Result:
    """Train in this process; `strike` = (step, signal): it sends itself the signal in that step."""
    from cnnlab.signals import Interrupted
    from cnnlab.task.classify import Classify
    from cnnlab.train import train

    if strike is not None:
        step, signum = strike
        training_step = Classify.training_step

        def struck(self, batch, batch_idx):
            if self.global_step == step:
                os.kill(os.getpid(), signum)
            return training_step(self, batch, batch_idx)

        Classify.training_step = struck
    try:
        return train(Composer().one(lines))
    except Interrupted as interrupted:
        raise SystemExit(interrupted.exit_code) from None


def bits(state: object) -> object:
    """A nested state with each tensor as its bytes, which == compares."""
    if isinstance(state, dict):
        return {key: bits(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [bits(value) for value in state]
    return state.numpy().tobytes() if isinstance(state, torch.Tensor) else state


def same_numbers(one: Path, other: Path) -> None:
    """Bit-equal weights, optimiser, metrics and history; times may differ."""
    first, second = Result.read(one), Result.read(other)
    assert first is not None and second is not None and first.status == second.status == "done"
    timeless = [{k: v for k, v in r.metrics.items() if not k.startswith("time/")} for r in (first, second)]
    assert timeless[0] == timeless[1]
    assert (first.best_epoch, first.epochs_done, first.threads) == (second.best_epoch, second.epochs_done, 1)
    rows = [
        [
            {k: v for k, v in row.items() if not k.startswith("time/")}
            for row in History(f / "history.csv").rows()
        ]
        for f in (one, other)
    ]
    assert rows[0] == rows[1]
    for name in ("last.ckpt", "best.ckpt"):
        kept = [torch.load(f / "checkpoints" / name, weights_only=True) for f in (one, other)]
        for key in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch"):
            assert bits(kept[0].get(key)) == bits(kept[1].get(key)), f"{name}: {key}"


def folder_of(lines: list[str]) -> Path:
    return Composer().one(lines).folder


PAIRS = list(
    itertools.islice(
        zip(itertools.cycle(available("optimizer")), itertools.cycle(available("schedule"))),
        max(len(available("optimizer")), len(available("schedule"))),
    )
)


# What makes them do something in three epochs.
QUICKLY = {
    "step": ["schedule.step_size=1"],
    "halve": ["schedule.every=1"],
    "plateau": ["schedule.patience=0", "schedule.threshold=0.9"],
    "lbfgs": ["batch_size=1294", "optimizer.max_iter=4"],
}


@pytest.mark.parametrize(("optimizer", "schedule"), PAIRS)
def test_killed_and_resumed_equals_never_stopped(optimizer, schedule, tmp_path):
    lines = [*EVERYTHING, f"optimizer={optimizer}", f"schedule={schedule}"]
    lines += QUICKLY.get(optimizer, []) + QUICKLY.get(schedule, [])
    whole, killed = ([*lines, f"output_dir={tmp_path / name}"] for name in ("whole", "killed"))
    isolated.run(train, whole)

    # After the first epoch, with whose end there is a checkpoint; an epoch of lbfgs is one step.
    steps = range(1, 3) if optimizer == "lbfgs" else range(STEPS // 3, STEPS)
    step = random.Random(f"{optimizer} {schedule}").choice(steps)
    with pytest.raises(isolated.Ended) as ended:
        isolated.run(train, killed, (step, signal.SIGKILL))
    assert ended.value.exitcode == -signal.SIGKILL
    left = Result.read(folder_of(killed))
    assert left is not None and left.status == "running", "it was in mid-run"
    result = isolated.run(train, killed)
    assert result.status == "done"
    same_numbers(folder_of(whole), folder_of(killed))


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_run_after_a_checkpoint_and_it_resumes_in_mid_epoch(signum, tmp_path):
    whole, stopped = ([*EVERYTHING, f"output_dir={tmp_path / name}"] for name in ("whole", "stopped"))
    isolated.run(train, whole)
    folder = folder_of(stopped)
    # Mid-epoch, the last step of an epoch, the first of one, twice in the same epoch, and the very last step.
    for step in (4, 10, 11, 15, 16, STEPS - 1):
        with pytest.raises(isolated.Ended) as ended:
            isolated.run(train, stopped, (step, signum))
        assert ended.value.exitcode == 128 + signum
        left = Result.read(folder)
        assert left is not None and left.status == "interrupted"
        saved = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
        assert saved == step + 1, "nothing was lost"
    isolated.run(train, stopped)
    same_numbers(folder_of(whole), folder)


@pytest.mark.parametrize(
    "extra",
    [
        "trainer.accumulate_grad_batches=2",
        "trainer.precision=64-true",
        "averaging=ema",
        "averaging=running_average averaging.start=0.4 trainer.accumulate_grad_batches=2",
        "optimizer=nesterov momentum=annealed schedule=plateau schedule.patience=0 schedule.threshold=0.9",
        "initializer=sparse regularizer.max_norm=0.5 regularizer.dropconnect=0.3 regularizer.l1=0.001",
    ],
)
def test_a_signal_in_a_run_of_another_kind_loses_nothing(extra, tmp_path):
    kind = [*EVERYTHING, *extra.split()]
    whole, stopped = ([*kind, f"output_dir={tmp_path / name}"] for name in ("whole", "stopped"))
    isolated.run(train, whole)
    for step in (3, 10):  # in mid-epoch, and as an epoch ends
        with pytest.raises(isolated.Ended):
            isolated.run(train, stopped, (step, signal.SIGTERM))
    isolated.run(train, stopped)
    same_numbers(folder_of(whole), folder_of(stopped))


def stop_while_testing(lines: list[str]) -> Result:
    from cnnlab.task.classify import Classify

    test_step = Classify.test_step

    def struck(self, batch, batch_idx):
        os.kill(os.getpid(), signal.SIGTERM)
        return test_step(self, batch, batch_idx)

    Classify.test_step = struck
    return train(lines)


def test_a_signal_in_the_test_phase_interrupts_the_run(tmp_path):
    lines = [*EVERYTHING, f"output_dir={tmp_path}"]
    with pytest.raises(isolated.Ended) as ended:
        isolated.run(stop_while_testing, lines)
    assert ended.value.exitcode == 128 + signal.SIGTERM
    left = Result.read(folder_of(lines))
    assert left is not None and left.status == "interrupted"
    assert isolated.run(train, lines).status == "done"


def test_torn_files_of_a_kill_do_not_matter(tmp_path):
    whole, torn = ([*EVERYTHING, f"output_dir={tmp_path / name}"] for name in ("whole", "torn"))
    isolated.run(train, whole)
    with pytest.raises(isolated.Ended):
        isolated.run(train, torn, (25, signal.SIGKILL))
    folder = folder_of(torn)
    (folder / "checkpoints" / "last.ckpt.tmp").write_bytes(b"half a checkpoint")
    (folder / "result.json.tmp").write_text('{"id": "ha')
    with (folder / "history.csv").open("a") as file:
        file.write("26,2,0.12")
    isolated.run(train, torn)
    same_numbers(folder_of(whole), folder)


def test_a_run_killed_before_its_first_checkpoint_starts_again(tmp_path):
    whole, killed = ([*EVERYTHING, f"output_dir={tmp_path / name}"] for name in ("whole", "killed"))
    isolated.run(train, whole)
    with pytest.raises(isolated.Ended):
        isolated.run(train, killed, (9, signal.SIGKILL))
    assert not (folder_of(killed) / "checkpoints" / "last.ckpt").exists()
    isolated.run(train, killed)
    same_numbers(folder_of(whole), folder_of(killed))


def hold_the_lock(lines: list[str]) -> str:
    """Train while another process already does."""
    import fcntl

    folder = Composer().one(lines).folder
    folder.mkdir(parents=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            train(lines)
        except RequestError as error:
            return str(error)
    return "trained"


def test_two_processes_never_train_one_run(tmp_path):
    said = isolated.run(hold_the_lock, [*EVERYTHING, f"output_dir={tmp_path}"])
    assert "another process" in said
