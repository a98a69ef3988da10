"""What is trained before the training: nothing, layer after layer, or the same network with conv=standard."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from cnnlab.allowed import whole
from cnnlab.atomic import replacing
from cnnlab.build import build_task
from cnnlab.config import Config
from cnnlab.data.images import ImageData
from cnnlab.features import in_order, run_until
from cnnlab.network import build_net, with_standard_conv
from cnnlab.objective import outputs
from cnnlab.parallel import distributed
from cnnlab.randomness import StepSeed
from cnnlab.refusals import build
from cnnlab.signals import Signals
from cnnlab.task.classify import Classify
from cnnlab.trainer import build_trainer, steps_per_epoch


class NoPretraining:
    """Start from the initial weights."""

    def check(self, config: Config, task: Classify) -> None:
        """Refuse, by ValueError, a task that cannot be pretrained like this."""

    def __call__(self, config: Config, task: Classify, data: ImageData, signals: Signals) -> None:
        """Train the task's weights, to start from."""


class Plain(NoPretraining):
    """First train the same network with conv=standard and copy its weights.

    Plain filters are a start that spares the decoupled operators bad optima. Optimizer, schedule, data and
    seed are the run's own.

    Source: Liu et al. 2018, Decoupled Networks, arXiv:1804.08071.
    Raises: ValueError for a convolution that lacks a weight of nn.Conv2d's shape.
    """

    def __init__(self, *, epochs: int = 5) -> None:
        self.epochs = whole("epochs", epochs, at_least=1)

    def check(self, config: Config, task: Classify) -> None:
        with torch.device("meta"):
            shape, width = task.hparams["input_shape"], task.hparams["width"]
            net = build_net(_plain(config), shape, outputs(task.loss, task.hparams["classes"]), width=width)
            plain = dict(net.named_parameters())
        generated = {
            f"{name.removeprefix('net.')}.weight" for name, c in task.convs.items() if hasattr(c, "violation")
        }  # of what is orthogonal by construction: no filters
        own = {n: p for n, p in task.net.named_parameters() if p.requires_grad and n not in generated}
        for name in plain:
            if name not in own or own[name].shape != plain[name].shape:
                layer = type(task.get_submodule(f"net.{name}".rpartition(".")[0])).__name__
                raise ValueError(
                    f"plain copies nn.Conv2d's weights: {layer} has no {name} of its shape to train"
                )

    def __call__(self, config: Config, task: Classify, data: ImageData, signals: Signals) -> None:
        plain = build_task(_plain(config), data, width=task.hparams["width"])
        _fit(config, plain, data, self.epochs, signals)
        task.net.load_state_dict(plain.net.state_dict(), strict=False)  # a variant may have more of its own


class Greedy(NoPretraining):
    """Train one convolution after the other, each under a linear classifier of its own features.

    The layers before it are frozen; norms and activations up to the next convolution are trained with it. The
    last one is trained with the network's own dense layers. Then everything is trained together, as without.

    Source: Bengio et al. 2007, Greedy Layer-Wise Training of Deep Networks; supervised, as in its appendix.
    Raises: ValueError for a network without convolutions.
    """

    def __init__(self, *, epochs: int = 2) -> None:
        self.epochs = whole("epochs", epochs, at_least=1)

    def check(self, config: Config, task: Classify) -> None:
        if not any(p.requires_grad for layer in task.convs.values() for p in layer.parameters()):
            raise ValueError(f"greedy needs convolutions to train, {type(task.net).__name__} has none")

    def __call__(self, config: Config, task: Classify, data: ImageData, signals: Signals) -> None:
        net, convs = task.net, set(task.convs.values())
        trainable = {parameter for parameter in net.parameters() if parameter.requires_grad}
        image = task.preprocessing(data.train_images[:1]).to(task.dtype)
        order = in_order(net.eval(), image, whole=convs)
        for index, layer in enumerate(order):
            if layer not in convs or not trainable & set(layer.parameters()):
                continue
            net.requires_grad_(False)
            _thaw(layer, trainable)
            later = (module for module in order[index + 1 :] if module in convs)
            until = next((conv for conv in later if run_until(net, conv, image).requires_grad), None)
            for module in order[index : order.index(until) if until else None]:
                if module not in convs:
                    _thaw(module, trainable)
            scores = outputs(task.loss, task.hparams["classes"])
            stage = net if until is None else Stage(net, until, scores, image)
            _fit(config, task.on(stage.train()), data, self.epochs, signals, frozen=order[:index])
            net.eval()
            _thaw(net, trainable)
        net.train()


def _thaw(module: nn.Module, trainable: set[nn.Parameter]) -> None:
    for parameter in trainable & set(module.parameters()):
        parameter.requires_grad_(True)


class Stage(nn.Module):
    """A network cut off before a layer, with a linear classifier of what would enter it."""

    def __init__(self, net: nn.Module, until: nn.Module, scores: int, image: Tensor) -> None:
        super().__init__()
        self.net, self.until = net, until
        self.head = nn.Linear(run_until(net, until, image).numel(), scores)

    def forward(self, input: Tensor) -> Tensor:
        return self.head(run_until(self.net, self.until, input).flatten(1))


class Watch(pl.Callback):
    """Keeps frozen layers in eval mode, and stops for a signal."""

    def __init__(self, signals: Signals, frozen: Sequence[nn.Module]) -> None:
        self.signals, self.frozen = signals, frozen

    def on_train_epoch_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        self.signals.install()  # Lightning has put its own handlers
        for module in self.frozen:
            module.eval()

    def on_train_batch_end(self, *step: Any) -> None:
        distributed.agree(self.signals)
        self.signals.check()


def pretrain(config: Config, task: Classify, data: ImageData, signals: Signals, path: Path) -> None:
    """Give the task the weights that its training starts from: made once, then read from the path."""
    choice = chosen(config)
    if type(choice) is NoPretraining:
        return
    if not path.exists():
        choice(config, task, data, signals)
        if not all(parameter.isfinite().all() for parameter in task.net.parameters()):
            raise ArithmeticError(f"{config.says('pretraining')}: the weights became inf or nan")
        if distributed.rank() == 0:
            path.parent.mkdir(exist_ok=True)
            with replacing(path) as part:
                torch.save(task.net.state_dict(), part)
        distributed.wait()
    task.net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))


def check(config: Config, task: Classify) -> None:
    """Refuse a task that cannot be pretrained as asked, before anything is written."""
    chosen(config).check(config, task)


def chosen(config: Config) -> NoPretraining:
    return build(config, ("pretraining",))


def _plain(config: Config) -> Config:
    config = with_standard_conv(config)
    return replace(config, tree=config.tree | {"match": None})  # its width is the run's own


def _fit(
    config: Config,
    task: Classify,
    data: ImageData,
    epochs: int,
    signals: Signals,
    frozen: Sequence[nn.Module] = (),
) -> None:
    """Train for some epochs, without validation."""
    trainer_node = config.tree["trainer"] | {"limit_val_batches": 0, "max_steps": -1, "max_time": None}
    config = replace(config, tree=config.tree | {"epochs": epochs, "trainer": trainer_node})
    trainer = build_trainer(config, [StepSeed(config.tree["seed"]), Watch(signals, frozen)])
    task.steps_per_epoch = steps_per_epoch(trainer, len(data.train_dataloader()))
    trainer.fit(task, data)
