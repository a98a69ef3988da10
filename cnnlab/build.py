"""Configuration -> objects: data, module."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cnnlab.allowed import RequestError
from cnnlab.config import Config
from cnnlab.refusals import build, refusals
from cnnlab.registry import factory

FITTED_ON = 1_000  # training images that convolutions without labels are fitted on
SPLIT = ("split_seed", "folds", "fold")  # keys of `dataset` that are ours, not its source's

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


def build_data(config: Config) -> "ImageData":
    """The data set of a configuration, loaded and split."""
    from cnnlab.data.images import ImageData

    tree = config.tree
    node = {knob: value for knob, value in tree["dataset"].items() if knob not in SPLIT}
    split = {knob: value for knob, value in tree["dataset"].items() if knob in SPLIT}
    with refusals(config, "dataset"):
        source = factory(node, tree["trusted"])()
        data = ImageData(source, batch_size=tree["batch_size"], seed=tree["seed"], **split)
        data.setup()
    return data


def build_task(
    config: Config, data: "ImageData", *, width: float | None = None, fit: bool = True
) -> "Classify":
    """The module of a configuration, with all that is learnt without steps learnt from the training part.

    Without `fit` nothing is: a checkpoint is to give its state.
    """
    from cnnlab.memorizing import memorize, memorizes
    from cnnlab.optimizer import check_batch_size

    task = assemble(
        config, data.input_shape, data.classes, width, targets=data.targets, structure=data.structure
    )
    if not memorizes(task):
        check_batch_size(config, data.sizes["train"])
    if fit:
        images = data.train_images  # a copy
        with refusals(config, "preprocessing"):
            task.preprocessing.fit(images)  # type: ignore[operator]
        fit_convolutions(task, images)
        if memorizes(task):
            memorize(config, task, data)
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
    config: Config,
    input_shape: tuple[int, ...],
    classes: int,
    width: float | None = None,
    *,
    targets: str = "class",
    structure: dict[str, Any] | None = None,
) -> "Classify":
    """The module of a configuration for images of a shape and targets of a kind.

    `width` is what match= chose, if it is known; `structure` what the data know of their targets.
    """
    import torch

    from cnnlab.match import matched
    from cnnlab.network import build_net
    from cnnlab.objective import build_loss, outputs
    from cnnlab.task import TASKS

    def choice(group: str) -> Callable[..., Any]:
        return functools.partial(build, config, (group,))

    # Some choices are built only when the training begins; what they refuse is known before.
    rehearsal = choice("optimizer")([torch.nn.Parameter(torch.zeros(1))])
    choice("schedule")(rehearsal, steps=config.tree["epochs"], steps_per_epoch=1)
    momentum = choice("momentum")()
    with refusals(config, "momentum"):
        momentum.check(rehearsal)
    shape = tuple(input_shape)
    augmentation = choice("augmentation")()
    if targets == "chain" and getattr(augmentation, "p", None):  # the chance of a flip
        raise RequestError(f"{config.says('augmentation')}: would mirror the order of a chain's labels")
    loss = build_loss(config, classes, targets, structure or {})
    scores = outputs(loss, classes)
    match = None
    if config.tree["match"] is not None and width is None:
        match = matched(config, shape, scores)
        width = match.width
    torch.manual_seed(config.tree["seed"])
    net = build_net(config, shape, scores, width=width)
    initializer = choice("initializer")()
    with refusals(config, "initializer"):
        initializer(net)
    return TASKS[targets](
        net,
        input_shape=shape,  # type: ignore[arg-type]
        classes=classes,
        width=width,
        targets=targets,
        structure=structure,
        match=match,
        loss=loss,
        regularizer=choice("regularizer")(),
        optimizer=choice("optimizer"),
        schedule=choice("schedule"),
        momentum=momentum,
        preprocessing=choice("preprocessing")(),
        augmentation=augmentation,
    )
