"""A whole run on one page: config -> data . model . task -> trainer -> result."""

import contextlib
import logging
import traceback
from datetime import UTC, datetime
from typing import Any

import pytorch_lightning as pl
import torch

from cnnlab import cost, memorizing, memory, pretraining, provenance
from cnnlab.build import build_data, build_task
from cnnlab.checkpoint import LastAndBest
from cnnlab.config import Config, default_words
from cnnlab.data.images import ImageData
from cnnlab.folder import RunFolder, finished
from cnnlab.history import History
from cnnlab.monitor.filters import filter_images
from cnnlab.monitor.nonfinite import where_it_began
from cnnlab.monitor.pruning import Pruned, Pruning
from cnnlab.parallel import distributed, ranks
from cnnlab.randomness import StepSeed
from cnnlab.recorder import NonFiniteLoss, Recorder
from cnnlab.refusals import build, refusals
from cnnlab.registry import factory, locate, node
from cnnlab.result import Result
from cnnlab.signals import Interrupted, Signals
from cnnlab.task.classify import Classify
from cnnlab.trainer import THREADS, build_trainer, steps_per_epoch

log: logging.Logger = logging.getLogger("cnnlab")


def train(config: Config, *, shared: bool = False) -> Result:
    """Train, test and record one run; the same configuration again resumes it, or returns its result.

    What goes wrong in training is recorded, not raised: the result's `status` and `error` tell. `shared` says
    that others use the machine at the same time, so that nobody ranks by these times.

    Raises:
        RequestError: data or arguments are wrong; nothing was written.
        Interrupted: a signal came; the run is checkpointed and resumes where it stopped.
    """
    if distributed.size() == 1 and ranks.processes(config) > 1:
        return ranks.train_apart(config, train)
    leads = distributed.rank() == 0  # the one process of the run that writes
    tree = config.tree
    before = Result.read(config.folder) if tree["resume"] else None
    # A resumed run keeps its threads: another count would change bits.
    threads = (before and before.threads) or tree["threads"] or max(1, THREADS // distributed.size())
    torch.set_num_threads(threads)
    memory.keep_freed_memory()
    memory.forget_peak()
    with distributed.leader_first():  # it downloads and decodes what the others then find
        data = build_data(config)
    path, started = config.folder, before.started if before else _now()
    history = History(path / "history.csv")
    recorder, signals = Recorder(history), Signals()
    checkpoints = LastAndBest(path / "checkpoints", recorder, signals)
    afresh = not tree["resume"] or checkpoints.step_of_last() is None
    task = build_task(config, data, fit=afresh)
    with refusals(config, "pretraining"):
        pretraining.check(config, task)
    ranks.check(config, task)
    averaging = build(config, ("averaging",))
    callbacks: list[pl.Callback] = [StepSeed(tree["seed"]), averaging, recorder, checkpoints]
    if bars := tree["sweep"].get("prune"):
        callbacks.append(Pruning(history, **bars))
    monitor = _monitor(config, recorder) if leads else None
    if monitor is not None:
        callbacks.append(monitor)
    trainer = build_trainer(config, callbacks)
    task.steps_per_epoch = steps_per_epoch(trainer, len(data.train_dataloader()))
    result = Result.of(
        config,
        match=task.match and task.match._asdict(),
        params=cost.parameters(task.net),
        macs=cost.macs(task.net, data.input_shape),
        device=str(trainer.strategy.root_device),
        precision=trainer.precision,
        threads=threads,
        shared=shared or bool(before and before.shared),
        started=started,
        **provenance.of(config),
    )

    with RunFolder(config) if leads else contextlib.nullcontext(), signals:
        distributed.wait()
        if (done := finished(config)) is not None:
            return done
        resumed_at = checkpoints.step_of_last()
        if leads:
            history.cut(after=-1 if resumed_at is None else resumed_at)
            recorder.logger = _logger(config, history)
            result.write(path)
        exit_code = 1
        try:
            if resumed_at is None and not memorizing.memorizes(task):
                pretraining.pretrain(config, task, data, signals, checkpoints.start)
            trainer.precision_plugin.convert_module(task)  # before a checkpoint of that precision is read
            if memorizing.memorizes(task):
                memorizing.conclude(trainer, task, data, checkpoints)
            else:
                trainer.fit(
                    task, data, ckpt_path=None if resumed_at is None else checkpoints.last, weights_only=True
                )
            distributed.agree(signals)
            signals.check()
            result.metrics = recorder.epoch | _evaluate(trainer, task, data, checkpoints)
            distributed.agree(signals)
            signals.check()
            result.status, exit_code = "done", 0
        except Interrupted as interrupted:
            result.status, result.error, exit_code = "interrupted", str(interrupted), interrupted.exit_code
            raise
        except Pruned as pruned:
            result.status, result.error, exit_code = "pruned", str(pruned), 0
        except (Exception, SystemExit) as error:
            result.status, result.error = "failed", f"{type(error).__name__}: {error}"
            if isinstance(error, NonFiniteLoss):
                began = where_it_began(config, data, checkpoints, error.step) if leads else ""
                distributed.wait()
                result.error = f"{error}; {began}"
            result.traceback = traceback.format_exc()
            log.debug("the run failed", exc_info=error)
        finally:
            result.metrics = result.metrics or recorder.epoch
            result.best_epoch, result.epochs_done = checkpoints.best_epoch, trainer.current_epoch
            result.images_per_s = recorder.images / recorder.seconds if recorder.seconds else None
            result.peak_memory_mb = memory.peak_mb(trainer.strategy.root_device)
            result.wall_s, result.finished = checkpoints.wall_s, _now()
            if leads:
                result.write(path)
            images = filter_images(task.net)
            if monitor is not None:
                images = monitor.conclude(images)
            if recorder.logger is not None:
                recorder.logger.conclude(result.summary, exit_code, images)
    return result


def _evaluate(
    trainer: pl.Trainer, task: Classify, data: ImageData, checkpoints: LastAndBest
) -> dict[str, float]:
    """Metrics of the best weights: on validation as recorded, on the test set for the first and only time."""
    distributed.wait()  # until it is written
    best = torch.load(checkpoints.best, map_location="cpu", weights_only=True)
    task.load_state_dict(best["state_dict"])
    metrics = checkpoints.best_metrics or dict(*trainer.validate(task, data, verbose=False))
    return metrics | dict(*trainer.test(task, data, verbose=False))


def _logger(config: Config, history: History) -> Any:
    with refusals(config, "logger"):
        return factory(config.tree["logger"], config.tree["trusted"])(
            folder=config.folder,
            run_id=config.id,
            name=config.tree["name"],
            summary=config.summary,
            tags=[f"{group}={word}" for group, word in config.choices.items()],
            config=config.tree | {"choices": config.choices},
            history=history.rows(),
        )


def _monitor(config: Config, recorder: Recorder) -> Any:
    """The monitor, None where there is to be none; it is told which modules of a net are activations."""
    nodes = config.tree["activation"], node("activation", default_words()["activation"])
    activations = tuple(locate(node["_target_"], config.tree["trusted"]) for node in nodes)
    return build(config, ("monitor",), recorder=recorder, activations=activations)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
