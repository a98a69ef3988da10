"""What the checks look at: a configuration's data, its untrained task, and that task after some steps."""

import copy
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from cnnlab.build import build_data, build_task
from cnnlab.check.watch import Watch
from cnnlab.config import Config
from cnnlab.data.batches import Batches
from cnnlab.randomness import StepSeed
from cnnlab.registry import node
from cnnlab.regularizer import Penalties
from cnnlab.trainer import THREADS, build_trainer

WARM_UP = 30  # steps: the loss has begun to fall, and the weights are no longer those of the initialisation
SHORT = 200  # steps: what can be learnt shows
IMAGES = 20_000  # fewer steps where batches are so large that they would take more images

# Of the Trainer's arguments; the others say how long and how precisely.
KEPT = ("_target_", "accelerator", "devices", "gradient_clip_val", "gradient_clip_algorithm")


class Subject:
    """A configuration under examination; everything is seeded, nothing is written.

    Its trainings go through the task, optimiser and Trainer of a run, but in float32, at the learning rate
    that the schedule starts from, and without a validation.
    """

    def __init__(self, config: Config) -> None:
        build_trainer(config, [])  # what it refuses is refused here too
        trainer = {knob: value for knob, value in config.tree["trainer"].items() if knob in KEPT}
        trainer |= {"precision": "32-true", "enable_progress_bar": False, "check_val_every_n_epoch": 2}
        plain = {"schedule": node("schedule", "constant"), "trainer": trainer, "epochs": 1}
        self.config = replace(config, tree=config.tree | plain)
        torch.set_num_threads(config.tree["threads"] or THREADS)
        self.data = build_data(self.config)
        self.untrained = build_task(self.config, self.data)
        self.warm_up, self.short = (
            max(10, min(steps, IMAGES // self.data.batch_size)) for steps in (WARM_UP, SHORT)
        )

    def task(self) -> Any:
        """The untrained task, free to be changed."""
        return copy.deepcopy(self.untrained)

    @cached_property
    def trainable(self) -> list[str]:
        """Names of the parameters that are trained."""
        return [name for name, parameter in self.untrained.named_parameters() if parameter.requires_grad]

    def examples(self, count: int) -> tuple[Tensor, Tensor]:
        """Training examples, the first in the order of the first epoch."""
        return next(iter(Batches(*self.data.train, batch_size=count, seed=self.config.tree["seed"])))

    def fit(self, task: Any, batches: "Steps", *callbacks: pl.Callback) -> None:
        """Train by the run's own optimiser, a step a batch."""
        trainer = build_trainer(self.config, [StepSeed(self.config.tree["seed"]), *callbacks])
        task.steps_per_epoch = len(batches)
        trainer.fit(task, train_dataloaders=batches, val_dataloaders=self.data.val_dataloader())

    def trained(self, steps: int, targets: Tensor | None = None) -> tuple[Any, Watch]:
        """The task after some steps on the training part, or on other targets for its images.

        Raises: ArithmeticError where weights or loss are then not finite.
        """
        task, watch, loader = self.task(), Watch(), self.data.train_dataloader()
        if targets is not None:
            loader = Batches(
                self.data.train_images, targets, batch_size=self.data.batch_size, seed=self.data.seed
            )
        self.fit(task, Steps(loader, steps), watch)
        if not all(tensor.isfinite().all() for tensor in (task.step_loss, *task.parameters())):
            raise ArithmeticError(
                f"in {steps} steps loss or weights became inf or nan: try a lower optimizer.lr"
            )
        return task, watch

    @cached_property
    def warm(self) -> tuple[Any, Watch]:
        """The task after a short warm-up, and what was seen of its steps."""
        return self.trained(self.warm_up)

    @cached_property
    def taught(self) -> tuple[Any, Watch]:
        """The task after a short training, and what was seen of its steps."""
        return self.trained(self.short)

    def measured(self, task: Any, part: str) -> dict[str, float]:
        """The metrics of `validate` or `test` as the Trainer computes them in a run."""
        evaluate: Callable[..., Any] = getattr(build_trainer(self.config, []), part)
        loader = {"validate": self.data.val_dataloader, "test": self.data.test_dataloader}[part]
        return dict(*evaluate(task, loader(), verbose=False))


class Steps:
    """As many batches of a loader as asked, epoch after epoch.

    >>> loader = Batches(torch.zeros(3, 1, 1, 1), torch.arange(3), batch_size=2)
    >>> [labels.tolist() for _, labels in Steps(loader, 3)]
    [[0, 1], [2], [0, 1]]
    """

    def __init__(self, loader: Batches, count: int) -> None:
        self.loader, self.count = loader, count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return itertools.islice(self.epochs(), self.count)

    def epochs(self) -> Iterator[tuple[Tensor, Tensor]]:
        for epoch in itertools.count():
            self.loader.set_epoch(epoch)
            yield from self.loader


def without_chance(task: Any) -> Any:
    """The task without augmentation, dropout, penalties and label smoothing: what is left is its loss."""
    task.augmentation, task.regularizer = nn.Identity(), Penalties()
    for module in task.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
    if hasattr(task.loss, "label_smoothing"):
        task.loss.label_smoothing = 0.0
    return task
