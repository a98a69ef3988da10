"""A trained run come back to life: its module, and its Trainer as its machine had it."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cnnlab.allowed import RequestError
from cnnlab.config import Config
from cnnlab.runs.recorded import Run, find

if TYPE_CHECKING:  # torch and Lightning take seconds to import
    import pytorch_lightning as pl

    from cnnlab.task.classify import Classify

BEST = Path("checkpoints", "best.ckpt")


def load(run: str | Path, *, trusted: Sequence[str] = ()) -> "Classify":
    """The trained LightningModule of a run (folder or id): its best weights, in eval mode; needs no data.

    A run's configuration names classes: those outside cnnlab are built only if `trusted` names their package.

    Raises:
        RequestError: the folder holds no run, or none that has finished an epoch.
    """
    import torch

    found = find(str(run))
    if not (found.folder / BEST).is_file():
        raise RequestError(f"{found.folder}: no {BEST}, so no weights")
    with blaming(found.folder / BEST), torch.random.fork_rng(devices=[]):  # the caller's stays where it is
        return network(found, as_trained(found, trusted)).eval()


def as_trained(run: Run, trusted: Sequence[str] = ()) -> Config:
    """The run's configuration with what its machine made of it.

    A key that came later has today's default: the metrics tell whether that is what the run was.
    """
    from cnnlab.compose import Composer

    tree = Composer().one([]).tree | run.config.tree
    trainer = tree["trainer"] | {"precision": run.result.precision, "enable_progress_bar": False}
    return replace(run.config, tree=tree | {"trainer": trainer, "trusted": list(trusted)})


def restored(run: Run, config: Config, checkpoint: Path = BEST) -> "tuple[Classify, pl.Trainer]":
    """The module with a checkpoint's weights, and the Trainer; threads and precision are the run's own."""
    import torch

    from cnnlab.trainer import THREADS, build_trainer

    torch.set_num_threads(run.result.threads or THREADS)
    trainer = build_trainer(config, [])
    return network(run, config, checkpoint), trainer


def network(run: Run, config: Config, checkpoint: Path = BEST) -> "Classify":
    """The module with a checkpoint's weights."""
    import torch

    from cnnlab.build import assemble

    kept = torch.load(run.folder / checkpoint, map_location="cpu", weights_only=True)
    task, weights = assemble(config, **kept["hyper_parameters"]), kept["state_dict"]
    dtype = next((weights[name].dtype for name, _ in task.named_parameters() if name in weights), task.dtype)
    if dtype != task.dtype:  # trainer.precision=64-true or bf16-true converted the whole module
        task.to(dtype)
    task.load_state_dict(weights)
    return task


@contextlib.contextmanager
def blaming(checkpoint: Path) -> Iterator[None]:
    """Data or code that are not those that the weights were trained with are a RequestError of one line."""
    try:
        yield
    except RequestError:
        raise
    except Exception as error:
        raise RequestError(f"{checkpoint}: {' '.join(str(error).split())}") from error
    except SystemExit as ended:  # Lightning's answer to Ctrl-C
        raise KeyboardInterrupt from ended
