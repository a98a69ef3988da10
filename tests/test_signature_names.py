"""A target is found in source as import would find it: through re-exports, stars, aliases and bases."""

import itertools

import pytest

from cnnlab.signature import find, signature
from tests.test_signature import defaults, written_package  # noqa: F401


def test_star_imports_aliases_and_relative_imports_are_followed(package):
    read = package(
        "Public",
        __init__="from .middle import *",
        middle="from .inner import Thing as Public\nfrom . import inner as _inner\n",
        inner="class Thing:\n    'What it is.'\n    def __init__(self, rho=2): ...\n",
    )
    assert (read.summary, defaults(read), read.file.name) == ("What it is.", {"rho": 2}, "inner.py")


def test_a_star_does_not_bring_private_names(package):
    assert package("_X", __init__="from .a import *", a="class _X: ...") is None


def test_the_last_binding_of_a_name_wins(package):
    source = "class X:\n def __init__(self, old): ...\nclass X:\n def __init__(self, new): ...\n"
    assert list(package("a.X", a=source).parameters) == ["new"]


def test_a_fallback_does_not_win_over_the_import_it_falls_back_from(package):
    source = "try:\n from .b import X\nexcept ImportError:\n X = None\nif True:\n Y = X\nelse:\n Y = None\n"
    b = "class X:\n def __init__(self, real=1): ..."
    assert defaults(package("a.Y", a=source, b=b)) == {"real": 1}


def test_a_function_is_preferred_to_the_module_it_shares_its_name_with(package):
    read = package("pool", __init__="from .pool import pool", pool="def pool(size=2): 'Pools.'")
    assert (read.summary, defaults(read)) == ("Pools.", {"size": 2})


def test_bases_are_found_through_each_way_to_import_them(package):
    source = """
import torch.nn as stock
from torch import nn
import torch.nn.modules.conv
Alias = nn.Conv2d
class A(nn.Conv2d): ...
class B(stock.Conv2d): ...
class C(torch.nn.modules.conv.Conv2d): ...
class D(Alias): ...
class E(D): ...
"""
    conv = signature("torch.nn.Conv2d").parameters
    for name in "ABCDE":
        read = package(f"a.{name}", a=source)
        assert read.parameters == conv
        assert read.file.name == "a.py"
        assert read.summary == "Applies a 2D convolution over an input signal composed of several input"


def test_a_shared_base_comes_after_the_classes_that_share_it(package):
    source = """
class Base:
    def __init__(self, base): ...
class Left(Base): ...
class Right(Base):
    def __init__(self, right): ...
class Diamond(Left, Right): ...
"""
    assert list(package("a.Diamond", a=source).parameters) == ["right"]  # as Python's own order has it


def test_a_class_named_as_its_base_keeps_its_own_constructor(package):
    source = "from torch.nn import Conv2d\nclass Conv2d(Conv2d):\n def __init__(self, rho=1): ..."
    assert defaults(package("a.Conv2d", a=source)) == {"rho": 1}


@pytest.mark.parametrize(
    "modules",
    [
        {"a": "from .b import X", "b": "from .a import X"},
        {"a": "from .b import *", "b": "from .a import *"},
        {"a": "from .b import Y as X", "b": "from .a import X as Y"},
        {"a": "X = X"},
        {"a": "class X(X): ..."},
        {"a": "from .b import Y\nclass X(Y): ...", "b": "from .a import X\nclass Y(X): ..."},
        {"a": "from ...... import X"},
        {"a": "import a.X as X"},
    ],
)
def test_circles_end(package, modules):
    assert package("a.X", **modules) is None


def test_a_mesh_of_star_imports_ends_soon(package, monkeypatch):
    names = [f"m{i}" for i in range(30)]
    star = "".join(f"from .{name} import *\n" for name in names)
    steps = itertools.count()

    def counted(path, *told, **asked):
        assert next(steps) < 10_000  # paths without repetition: 30!
        return find(path, *told, **asked)

    monkeypatch.setattr("cnnlab.signature.find", counted)
    assert package("m0.X", **dict.fromkeys(names, star)) is None


def test_packages_without_init_are_walked(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "bare_space" / "inner").mkdir(parents=True)
    (tmp_path / "bare_space" / "inner" / "a.py").write_text("def f(x=1): ...")
    assert defaults(signature("bare_space.inner.a.f")) == {"x": 1}
    assert signature("bare_space.inner") is None
