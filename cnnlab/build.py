"""Configuration -> objects: data, module."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnlab.allowed import RequestError
from cnnlab.config import Config
from cnnlab.refusals import build, refusals
from cnnlab.registry import factory

FITTED_ON = 1_000  # training images that convolutions without labels are fitted on

if TYPE_CHECKING:  # torch and Lightning take seconds to import
    from torch import Tensor

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
    weights = checkpoint["state_dict"]
    dtype = next((weights[name].dtype for name, _ in task.named_parameters() if name in weights), task.dtype)
    if dtype != task.dtype:  # trainer.precision=64-true or bf16-true converted the whole module
        task.to(dtype)
    task.load_state_dict(weights)
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


def build_task(
    config: Config, data: "ImageData", *, width: float | None = None, fit: bool = True
) -> "Classify":
    """The module of a configuration, with all that is fitted without labels fitted on the training part.

    Without `fit` the convolutions are not: a checkpoint is to give their state.
    """
    task = assemble(config, data.input_shape, data.classes, width)
    images = data.train_images  # a copy
    with refusals(config, "preprocessing"):
        task.preprocessing.fit(images)  # type: ignore[operator]
    if fit:
        fit_convolutions(task, images)
    return task


def fit_convolutions(task: "Classify", images: "Tensor") -> None:
    """Fit the convolutions that learn without labels (`fit`), each on what enters it, from first to last."""
    import torch

    from cnnlab.features import entering

    fitted = [layer for layer in task.convs.values() if hasattr(layer, "fit")]
    if fitted:
        images = images[torch.randperm(len(images))[:FITTED_ON].to(images.device)]
    for layer in fitted:
        layer.fit(entering(task, layer, images))


def assemble(
    config: Config, input_shape: tuple[int, ...], classes: int, width: float | None = None
) -> "Classify":
    """The module of a configuration for images of a shape; `width` is what match= chose, if it is known."""
    import torch

    from cnnlab.match import matched
    from cnnlab.network import build_net
    from cnnlab.task.classify import Classify

    def choice(group: str) -> Callable[..., Any]:
        return functools.partial(build, config, (group,))

    # Some choices are built only when the training begins; what they refuse is known before.
    rehearsal = choice("optimizer")([torch.nn.Parameter(torch.zeros(1))])
    choice("schedule")(rehearsal, epochs=config.tree["epochs"], steps_per_epoch=1)
    shape = tuple(input_shape)
    match = None
    if config.tree["match"] is not None and width is None:
        match = matched(config, shape, classes)
        width = match.width
    torch.manual_seed(config.tree["seed"])
    return Classify(
        build_net(config, shape, classes, width=width),
        input_shape=shape,  # type: ignore[arg-type]
        classes=classes,
        width=width,
        match=match,
        loss=choice("loss")(),
        regularizer=choice("regularizer")(),
        optimizer=choice("optimizer"),
        schedule=choice("schedule"),
        preprocessing=choice("preprocessing")(),
        augmentation=choice("augmentation")(),
    )
