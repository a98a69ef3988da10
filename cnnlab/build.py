"""Configuration -> objects: data, module. What a constructor refuses becomes one line with choice and key."""

import contextlib
import functools
import logging
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnlab.allowed import RequestError
from cnnlab.config import Config, shown
from cnnlab.registry import factory

log = logging.getLogger("cnnlab")

if TYPE_CHECKING:  # torch and Lightning take seconds to import
    from cnnlab.data.images import ImageData
    from cnnlab.task.classify import Classify


def module(*overrides: str, config_dir: str | None = None) -> "Classify":
    """The LightningModule of a configuration, for anyone's own Trainer.

    It is untrained, preprocesses by the statistics of its own data set, and takes images as that has them.

    >>> net = module("conv=decoupled_tanh", "ortho_weight=0.1")
    >>> import torch
    >>> net(torch.zeros(2, 1, 8, 8, dtype=torch.uint8)).shape
    torch.Size([2, 10])
    """
    import torch

    from cnnlab.compose import Composer

    config = Composer(config_dir).one(overrides)
    with torch.random.fork_rng(devices=[]):  # the caller's generator stays where it is
        return build_task(config, build_data(config))


def load(run: str | Path, *, trusted: tuple[str, ...] = ()) -> "Classify":
    """The trained LightningModule of a run's folder, with its best weights, in eval mode; needs no data.

    A run's configuration names classes: those outside cnnlab are built only if `trusted` names their package.

    Raises:
        RequestError: the folder holds no run, or none that has finished an epoch.
    """
    import torch
    from omegaconf import OmegaConf

    folder = Path(run)
    for needed in (folder / "config.yaml", folder / "checkpoints" / "best.ckpt"):
        if not needed.is_file():
            raise RequestError(f"load {folder}: no {needed.relative_to(folder)}, so no trained run")
    tree: Any = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
    checkpoint = torch.load(folder / "checkpoints" / "best.ckpt", map_location="cpu", weights_only=True)
    with torch.random.fork_rng(devices=[]):  # the caller's generator stays where it is
        task = assemble(Config(tree | {"trusted": list(trusted)}), **checkpoint["hyper_parameters"])
    task.load_state_dict(checkpoint["state_dict"])
    return task.eval()


def build_data(config: Config) -> "ImageData":
    """The data set of a configuration, loaded and split."""
    from cnnlab.data.images import ImageData

    tree = config.tree
    node = {knob: value for knob, value in tree["dataset"].items() if knob != "split_seed"}
    with refusals(config, "dataset"):
        source = factory(node, tree["trusted"])()
        split_seed = tree["dataset"]["split_seed"]
        data = ImageData(source, batch_size=tree["batch_size"], seed=tree["seed"], split_seed=split_seed)
        data.setup()
    return data


def build_task(config: Config, data: "ImageData") -> "Classify":
    """The module of a configuration, its preprocessing fitted on the training part."""
    task = assemble(config, data.input_shape, data.classes)
    with refusals(config, "preprocessing"):
        task.preprocessing.fit(data.train_images)  # type: ignore[operator]
    return task


def assemble(config: Config, input_shape: tuple[int, ...], classes: int) -> "Classify":
    """The module of a configuration for images of a shape."""
    import torch

    from cnnlab import conv
    from cnnlab.task.classify import Classify

    def choice(*groups: str) -> Callable[..., Any]:
        return functools.partial(_guarded, config, groups)

    # Some choices are built only when the training begins, or by no layer; what they refuse is known before.
    choice("activation")()
    rehearsal = choice("optimizer")([torch.nn.Parameter(torch.zeros(1))])
    choice("schedule")(rehearsal, epochs=config.tree["epochs"], steps_per_epoch=1)
    torch.manual_seed(config.tree["seed"])
    shape = tuple(input_shape)
    net = choice("model", "conv", "activation")(
        shape, classes, conv=choice("conv"), activation=choice("activation")
    )
    if not conv.layers(net) and config.choices.get("conv", "standard") != "standard":
        choice("conv")(16, 16, 1)  # its knobs are judged all the same
        log.warning(
            "model=%s has no convolution: conv=%s changes nothing",
            *map(config.choices.get, ("model", "conv")),
        )
    return Classify(
        net,
        input_shape=shape,  # type: ignore[arg-type]
        classes=classes,
        loss=choice("loss")(),
        regularizer=choice("regularizer")(),
        optimizer=choice("optimizer"),
        schedule=choice("schedule"),
        preprocessing=choice("preprocessing")(),
        augmentation=choice("augmentation")(),
    )


def _guarded(config: Config, groups: tuple[str, ...], *args: Any, **kwargs: Any) -> Any:
    """Build the choice of the first group; the others' choices are built within it."""
    node = config.tree[groups[0]]
    with refusals(config, *groups):
        for knob in node.keys() & kwargs.keys():
            raise ValueError(f"{knob} is not free, cnnlab sets it")
        return factory(node, config.tree["trusted"])(*args, **kwargs)


@contextlib.contextmanager
def refusals(config: Config, *groups: str) -> Iterator[None]:
    """Turn what a choice refuses into a RequestError that begins with choice and key.

    The first group is the one that is built; a knob of the others is blamed where the message begins with it.
    """
    try:
        yield
    except RequestError:
        raise  # a choice within a choice has already said it
    except Exception as error:
        if os.environ.get("HYDRA_FULL_ERROR"):
            raise
        message = " ".join(str(error).split()) or type(error).__name__
        group, knob = _blamed(config, groups, message)
        if knob is not None:
            message = re.sub(rf"^{knob}(=\S+:)? ", "", message)
        raise RequestError(f"{config.says(group, knob)}: {message}") from error


def _blamed(config: Config, groups: tuple[str, ...], message: str) -> tuple[str, str | None]:
    """The group and knob a message is about: one it begins with, else names, else whose value it quotes."""
    knobs = [(group, knob) for group in groups for knob in config.tree[group] if knob != "_target_"]
    first = [(group, knob) for group, knob in knobs if group == groups[0]]
    begins = [(group, knob) for group, knob in knobs if re.match(rf"{knob}\b", message)]
    names = [(group, knob) for group, knob in first if re.search(rf"\b{knob}\b", message)]
    quotes = [
        (group, knob)
        for group, knob in first
        if re.search(rf"(?<![\w.]){re.escape(shown(config.tree[group][knob]))}(?![\w.])", message)
    ]
    return next(iter(begins + names + quotes), (groups[0], None))
