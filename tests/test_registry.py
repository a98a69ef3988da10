"""Words -> objects, and only trusted ones."""

import inspect
from pathlib import Path

import pytest
import torch

import cnnlab
from cnnlab import registry
from cnnlab.network import PARTS
from cnnlab.registry import CONF, locate

WORDS = [(path.parent.name, path.stem) for path in sorted(CONF.glob("*/*.yaml"))]
CHOICES = [(group, word) for group, word in WORDS if group != "experiment"]


@pytest.mark.parametrize(("group", "word"), CHOICES, ids="/".join)
def test_a_yaml_lists_the_knobs_of_its_class_with_their_defaults(group, word):
    node = registry.node(group, word)
    constructor = locate(node["_target_"])
    assert node["_target_"] == f"{constructor.__module__}.{constructor.__qualname__}" or group in (
        *("activation", "pooling", "optimizer", "augmentation", "trainer"),
    ), "the module where it is defined"
    parameters = inspect.signature(constructor).parameters
    if not constructor.__module__.startswith("cnnlab"):
        assert set(node) - {"_target_"} <= set(parameters)
        return
    knobs = {
        name: list(p.default) if isinstance(p.default, tuple) else p.default
        for name, p in parameters.items()
        if p.kind is p.KEYWORD_ONLY and p.default is not p.empty and name not in PARTS
    }
    geometry = set(inspect.signature(torch.nn.Conv2d).parameters) if group == "conv" else set()
    assert {key: value for key, value in node.items() if key not in {"_target_", *geometry}} == knobs


def test_every_class_of_a_group_has_a_word():
    """No orphan: each public class with nn.Conv2d's constructor is named by a YAML."""
    named = {registry.node(group, word)["_target_"] for group, word in CHOICES}
    for path in sorted(Path(registry.PACKAGE, "conv").glob("*.py")):
        module = __import__(f"cnnlab.conv.{path.stem}", fromlist=["_"])
        for name, found in vars(module).items():
            if inspect.isclass(found) and found.__module__ == module.__name__ and not name.startswith("_"):
                subclasses = {f"{c.__module__}.{c.__name__}" for c in found.__subclasses__()}
                is_conv = "kernel_size" in inspect.signature(found).parameters
                assert not is_conv or {f"{module.__name__}.{name}"} | subclasses & named or subclasses & named
                assert not is_conv or f"{module.__name__}.{name}" in named or subclasses & named, name


def test_create_builds_by_word_with_overrides():
    layer = cnnlab.create("conv", "decoupled_tanh", 3, 16, 3, padding=1, rho=2.0)
    assert layer(torch.zeros(1, 3, 5, 5)).shape == (1, 16, 5, 5)
    assert cnnlab.create("optimizer", "sgd", layer.parameters(), lr=0.5).param_groups[0]["lr"] == 0.5
    assert "standard" in cnnlab.available("conv") and cnnlab.available("nonsense") == []


@pytest.mark.parametrize(
    ("group", "word", "said"),
    [
        ("conv", "decoupled_tan", "did you mean 'decoupled_tanh'"),
        ("convs", "standard", "did you mean 'conv'"),
    ],
)
def test_create_says_which_word_there_is(group, word, said):
    with pytest.raises(ValueError, match=said):
        cnnlab.create(group, word)


@pytest.mark.parametrize(
    "target",
    [
        *(
            "os.system",
            "builtins.eval",
            "torch.load",
            "torch.hub.load",
            "cnnlab",
            "",
            "torch.nn",
            "nonsense.X",
        ),
        "cnnlab.build.os.system",  # a module that only happens to be within reach
        "cnnlab.registry.importlib.import_module",
        "cnnlab.registry.Path",  # defined elsewhere
        "torch.nn.functional.os",
        "cnnlab.registry.TRUSTED",
        "cnnlab_evil.X",
    ],
)
def test_what_is_not_trusted_is_not_located(target):
    with pytest.raises(ValueError, match="_target_="):
        locate(target)


def test_trusted_adds_a_package():
    with pytest.raises(ValueError, match="only classes"):
        locate("fractions.Fraction")
    from fractions import Fraction

    assert locate("fractions.Fraction", trusted=["fractions"]) is Fraction
