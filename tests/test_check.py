"""`cnnlab check` passes what is healthy and finds each bug planted here, by the check meant for it."""

import pytest
import torch
from torch import Tensor, nn

import cnnlab.network
from cnnlab.check import overfit
from cnnlab.check.command import available, finding
from cnnlab.check.subject import Subject
from cnnlab.compose import Composer
from cnnlab.data.digits import Digits
from cnnlab.data.images import ImageData
from cnnlab.registry import locate
from cnnlab.regularizer import Penalties
from cnnlab.task.classify import Classify

SMALL = ["threads=1", "model.filters=[8,16]", "model.convs=1"]
HEALTHY = [
    SMALL,
    ["threads=1", "model=linear"],
    ["threads=1", "model=nearest_neighbor"],
    [*SMALL, "conv=decoupled_tanh", "ortho_weight=0.1", "optimizer.lr=0.01"],
    [*SMALL, "conv=random", "regularizer.l2=0.01", "optimizer.lr=0.01"],
    [
        "threads=1",
        "model.filters=[8]",
        "model.convs=1",
        "conv=kmeans",
        "conv.patches=500",
        "optimizer.lr=0.01",
    ],
    [*SMALL, "activation=tanh", "optimizer=sgd"],
    [*SMALL, "activation=crelu", "loss=hinge"],
    [
        *SMALL,
        "model.batch_norm=true",
        "model.dropout=0.5",
        "augmentation=crop_flip",
        "loss.label_smoothing=0.1",
    ],
    [*SMALL, "dataset.targets=attributes", "loss=attribute_hinge", "regularizer.dropconnect=0.2"],
]


def subject(*lines: str) -> Subject:
    return Subject(Composer().one([*SMALL, *lines]))


@pytest.mark.parametrize("lines", HEALTHY, ids=lambda lines: " ".join(lines[1:]))
def test_what_is_healthy_fails_no_check(lines):
    whole = Subject(Composer().one(lines))
    failed = {name: found for name in available() if (found := finding(name, whole)).verdict == "fail"}
    assert failed == {}


def verdict(name: str, whole: Subject) -> tuple[str, str]:
    found = finding(name, whole)
    return found.verdict, found.words


@pytest.fixture
def plant(monkeypatch):
    """Puts something else in the place of an attribute, for the time of a test."""
    return monkeypatch.setattr


def test_a_wrong_sign_of_the_loss_is_found(plant):
    measure = Classify._measure
    plant(Classify, "_measure", lambda *arguments: -measure(*arguments))
    whole = subject()
    assert verdict("gradient", whole)[0] == "fail"
    assert verdict("overfit", whole) == (
        "fail",
        "the loss of 20 examples: a sign is wrong, or optimizer.lr is too high",
    )


def test_a_step_uphill_is_found():
    whole = subject("optimizer.maximize=true")
    assert verdict("overfit", whole)[0] == "fail"
    assert verdict("gradient", whole)[0] == "pass"  # which is not to blame


def test_gradients_that_are_not_zeroed_are_found(plant):
    plant(Classify, "optimizer_zero_grad", lambda *arguments: None)
    found = verdict("zero_grad", subject())
    assert found[0] == "fail" and "zeroed between steps" in found[1]


class TwiceNormalised(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, pixels: Tensor) -> Tensor:
        return self.net(pixels).softmax(1)


def test_a_softmax_before_the_softmax_is_found(plant):
    plant(overfit, "STEPS", 200)
    build_net = cnnlab.network.build_net
    plant(cnnlab.network, "build_net", lambda *args, **kwargs: TwiceNormalised(build_net(*args, **kwargs)))
    found = verdict("overfit", subject())
    assert found[0] == "fail" and "probabilities already" in found[1]


@pytest.mark.parametrize("part", ["val", "test"])
def test_labels_off_by_one_in_a_part_are_found(plant, part):
    load = ImageData.load

    def renumbering(data: ImageData) -> None:
        load(data)
        shifted = data.parts[part].labels.clone()
        shifted[data.parts[part].chosen] += 1
        data.parts[part] = data.parts[part]._replace(labels=shifted % 10)

    plant(ImageData, "load", renumbering)
    found = verdict("labels", subject())
    assert found[0] == "fail" and "renumbered" in found[1]


def test_labels_of_other_images_are_found(plant, monkeypatch):
    monkeypatch.setenv("CNNLAB_CACHE", "/dev/null")
    load = Digits.load

    def mixed(source: Digits) -> object:
        (images, labels), test = load(source)
        return (images, labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]), test

    plant(Digits, "load", mixed)
    found = verdict("labels", subject())
    assert found[0] == "fail" and "do not belong together" in found[1]


class Deaf(locate("cnnlab.conv.standard.StandardConv2d")):
    """Its weight gets no gradient."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight.detach(), self.bias)


def test_a_layer_without_gradient_is_found():
    found = finding("frozen", subject(f"conv._target_={__name__}.Deaf", "trusted=[tests]"))
    assert (found.verdict, found.figure) == ("fail", "net.features.0.weight")


def test_a_frozen_layer_is_found(plant):
    build_net = cnnlab.network.build_net

    def frozen(*args, **kwargs):
        net = build_net(*args, **kwargs)
        net.classifier.requires_grad_(False)
        return net

    plant(cnnlab.network, "build_net", frozen)
    found = verdict("frozen", subject())
    assert found[0] == "fail" and "requires_grad=False" in found[1]


def test_a_layer_that_the_optimizer_does_not_know_is_found():
    whole = subject()
    optimizer = whole.untrained.optimizer
    whole.untrained.optimizer = lambda parameters: optimizer(list(parameters)[1:])
    found = finding("frozen", whole)
    assert (found.verdict, found.figure) == ("fail", "net.features.0.weight")


def test_filters_fixed_on_purpose_are_said_to_be():
    found = verdict("frozen", subject("conv=random"))
    assert found[0] == "pass" and "conv=random fixes on purpose" in found[1]


@pytest.mark.parametrize(("known", "expected"), [(0, "pass"), (1, "warn"), (20, "fail")])
def test_validation_images_that_are_trained_on_are_found(plant, known, expected):
    load = ImageData.load

    def leaking(data: ImageData) -> None:
        load(data)
        train, validation = data.parts["train"], data.parts["val"]
        chosen = torch.cat([train.chosen, validation.chosen[:known]])
        data.parts["train"] = train._replace(chosen=chosen)

    plant(ImageData, "load", leaking)
    assert verdict("leak", subject())[0] == expected


def test_statistics_of_validation_images_are_found(plant):
    whole = subject()
    whole.untrained.preprocessing.fit(whole.data.val[0])
    found = verdict("leak", whole)
    assert found[0] == "fail" and "preprocessing" in found[1]


def test_augmentation_on_validation_is_found(plant):
    def augmented(task: Classify, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        task._measure("val", task.augmentation.train()(batch[0]), batch[1])

    plant(Classify, "validation_step", augmented)
    assert verdict("validation", subject("augmentation=crop_flip", "augmentation.padding=1"))[0] == "fail"
    assert verdict("validation", subject())[0] == "pass"


def test_raw_pixels_are_found():
    assert verdict("inputs", subject("preprocessing=none"))[0] == "fail"
    assert verdict("inputs", subject("preprocessing=unit_range"))[0] == "pass"


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(context, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(context, gradient: Tensor) -> Tensor:
        return gradient  # twice that is right


class WrongBackward(locate("cnnlab.conv.standard.StandardConv2d")):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(Doubled.apply(x) / 2)


def test_a_wrong_backward_of_a_variant_is_found():
    found = verdict("gradient", subject(f"conv._target_={__name__}.WrongBackward", "trusted=[tests]"))
    assert found[0] == "fail" and "worst net.features.0." in found[1]  # what lies behind it


def test_a_regulariser_of_nothing_is_found(plant):
    assert verdict("regularizer", subject("ortho_weight=0.1"))[0] == "pass"
    found = verdict("regularizer", Subject(Composer().one(["model=linear", "ortho_weight=0.1"])))
    assert found[0] == "fail" and "regularizer.orthogonality doubled: it penalises nothing" in found[1]
    plant(Penalties, "__call__", lambda penalties, net: 0.0)
    assert verdict("regularizer", subject("regularizer.l2=0.1"))[0] == "fail"


def test_a_penalty_without_gradient_is_found(plant):
    penalise = Penalties.__call__
    plant(Penalties, "__call__", lambda penalties, net: torch.as_tensor(penalise(penalties, net)).detach())
    whole = subject("regularizer.l2=0.1")
    assert verdict("gradient", whole)[0] == "fail"
    assert verdict("regularizer", whole)[0] == "pass"


class NotLinear(locate("cnnlab.conv.standard.StandardConv2d")):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).tanh()


class Mixes(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - x.mean(0))


@pytest.mark.parametrize(("breaker", "law"), [("NotLinear", "`linear`"), ("Mixes", "do not mix")])
def test_a_variant_that_breaks_a_law_is_found(breaker, law):
    found = verdict("laws", subject(f"conv._target_={__name__}.{breaker}", "trusted=[tests]"))
    assert found[0] == "fail" and f"{breaker} breaks a law: " in found[1] and law in found[1]


def test_equal_initial_weights_are_found():
    whole = subject("initializer=zeros")
    assert verdict("symmetry", whole)[0] == "fail"
    assert verdict("symmetry", Subject(Composer().one(["model=linear", "initializer=zeros"])))[0] == "pass"


def test_initial_weights_that_are_too_large_are_found():
    whole = subject("activation=tanh")
    with torch.no_grad():
        for parameter in whole.untrained.parameters():
            parameter.mul_(100)
    assert verdict("initial_loss", whole)[0] == "fail"
    saturated = finding("units", whole)
    assert saturated.verdict == "fail" and "saturated" in saturated.words


def test_dead_units_are_found():
    whole = subject("optimizer=sgd", "optimizer.lr=1e-6")
    with torch.no_grad():
        whole.untrained.net.features[0].bias[:6] = -100  # of 8
    found = finding("units", whole)
    assert (found.verdict, found.figure) == ("fail", "75%")


def test_answers_known_to_the_model_are_found(plant):
    plant(Classify, "judged", lambda task, scores, targets: torch.ones_like(targets))
    assert verdict("shuffled", subject())[0] == "fail"


@pytest.mark.parametrize(("lr", "words"), [(1e-7, "too low"), (0.05, "too high")])
def test_a_step_that_is_too_small_or_too_large_is_warned_of(lr, words):
    found = verdict("update_ratio", subject(f"optimizer.lr={lr}"))
    assert found[0] == "warn" and words in found[1]


def test_a_training_that_diverges_is_said_to():
    found = finding("units", subject("optimizer=sgd", "optimizer.lr=1e30"))
    assert (found.verdict, found.figure) == (
        "fail",
        "ArithmeticError",
    ) and "lower optimizer.lr" in found.words
