"""A trained run come back to life: its module and Trainer as its machine had them."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cnnlab.allowed import RequestError
from cnnlab.compose import Composer
from cnnlab.config import Config
from cnnlab.recorded import Run

if TYPE_CHECKING:  # torch and Lightning take seconds to import
    import pytorch_lightning as pl

    from cnnlab.task.classify import Classify

BEST = Path("checkpoints", "best.ckpt")


def as_trained(run: Run, trusted: Sequence[str] = ()) -> Config:
    """The run's configuration with what its machine made of it.

    A key that came later has today's default: the metrics tell whether that is what the run was.
    """
    tree = Composer().one([]).tree | run.config.tree
    trainer = tree["trainer"] | {"precision": run.result.precision, "enable_progress_bar": False}
    return replace(run.config, tree=tree | {"trainer": trainer, "trusted": list(trusted)})


def restored(run: Run, config: Config, checkpoint: Path = BEST) -> "tuple[Classify, pl.Trainer]":
    """The module with a checkpoint's weights, and the Trainer; threads and precision are the run's own."""
    import torch

    from cnnlab.build import assemble
    from cnnlab.trainer import THREADS, build_trainer

    torch.set_num_threads(run.result.threads or THREADS)
    trainer = build_trainer(config, [])
    kept = torch.load(run.folder / checkpoint, map_location="cpu", weights_only=True)
    task = assemble(config, **kept["hyper_parameters"])
    trainer.precision_plugin.convert_module(task)  # before weights of that precision are read
    task.load_state_dict(kept["state_dict"])
    return task, trainer


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
