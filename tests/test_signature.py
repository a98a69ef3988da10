"""What is read from source equals what the imported object says of itself."""

import importlib
import inspect
import itertools
import subprocess
import sys
import time
from typing import Literal, get_args, get_origin

import pytest
import yaml

from cnnlab.registry import CONF
from cnnlab.signature import REQUIRED, Source, signature

IN_CONF = {(yaml.safe_load(path.read_text()) or {}).get("_target_") for path in CONF.glob("*/*.yaml")} - {
    None
}
NAMED = {
    "torch.nn.ReLU",  # star import
    "torch.nn.Conv2d",  # __doc__ assembled in the class
    "torch.nn.BatchNorm2d",  # constructor of a private base
    "torch.nn.Tanh",  # constructor of nn.Module
    "torch.nn.CrossEntropyLoss",
    "torch.nn.init.xavier_uniform_",
    "torch.nn.utils.parametrizations.orthogonal",
    "torch.optim.Adam",  # __doc__ assembled after the class
    "torch.optim.AdamW",
    "torch.optim.lr_scheduler.OneCycleLR",
    "torch.optim.lr_scheduler.ReduceLROnPlateau",
    "pytorch_lightning.Trainer",  # docstring in __init__
    "pytorch_lightning.loggers.CSVLogger",
    "pytorch_lightning.loggers.WandbLogger",
    "pytorch_lightning.callbacks.EarlyStopping",
    "collections.Counter",  # `/` in the signature
    "string.Template",
}


def literals(annotation):
    """The values of a Literal or a union of them, None for NoneType."""
    if annotation is type(None):
        return (None,)
    args = get_args(annotation)
    return args if get_origin(annotation) is Literal else sum(map(literals, args), ())


@pytest.mark.parametrize("target", sorted(IN_CONF | NAMED))
def test_source_says_what_the_imported_object_says(target):
    module, _, name = target.rpartition(".")
    found = getattr(importlib.import_module(module), name)
    expected = inspect.signature(found).parameters.values()
    named = {each.name: each for each in expected if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)}

    read = signature(target)
    assert list(read.parameters) == list(named)
    assert read.accepts_any == any(each.kind is each.VAR_KEYWORD for each in expected)
    for argument, parameter in named.items():
        ours = read.parameters[argument]
        assert ours.keyword_only == (parameter.kind is parameter.KEYWORD_ONLY)
        assert (ours.default is REQUIRED) == (parameter.default is parameter.empty)
        if not isinstance(ours.default, Source):
            assert ours.default == parameter.default
            assert type(ours.default) is type(parameter.default)
        if ours.words or ours.annotation.startswith("Literal["):
            postponed = isinstance(parameter.annotation, str)
            names = vars(sys.modules[found.__module__])
            annotation = eval(parameter.annotation, names) if postponed else parameter.annotation
            assert ours.words == literals(annotation)

    text = inspect.getdoc(found) or inspect.getdoc(found.__init__)
    assert read.summary == text.strip().split("\n")[0]
    assert read.file.samefile(inspect.getsourcefile(found))


counter = itertools.count()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Write a package of modules; the answer is the signature of a name in it."""
    name = f"signed_{next(counter)}"  # no two alike: answers are cached
    monkeypatch.syspath_prepend(tmp_path)

    def write(target: str, **modules: str | bytes):
        (tmp_path / name).mkdir(exist_ok=True)
        for module, source in {"__init__": "", **modules}.items():
            content = source if isinstance(source, bytes) else source.encode()
            (tmp_path / name / f"{module}.py").write_bytes(content)
        return signature(f"{name}.{target}")

    return write


def defaults(read):
    return {name: parameter.default for name, parameter in read.parameters.items()}


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


def test_a_mesh_of_star_imports_ends_soon(package):
    names = [f"m{i}" for i in range(30)]
    star = "".join(f"from .{name} import *\n" for name in names)
    started = time.perf_counter()
    assert package("m0.X", **dict.fromkeys(names, star)) is None
    assert time.perf_counter() - started < 5  # paths without repetition: 30!


def test_dataclasses_take_their_fields(package):
    source = """
import dataclasses
from dataclasses import dataclass
from typing import ClassVar
@dataclasses.dataclass(frozen=True)
class X:
    '''Two fields.'''
    a: int
    b: str = "x"
    kind: ClassVar[str] = "no field"
    def method(self): ...
"""
    read = package("a.X", a=source)
    assert defaults(read) == {"a": REQUIRED, "b": "x"}
    assert (read.summary, read.accepts_any) == ("Two fields.", False)


@pytest.mark.parametrize(
    "source",
    [
        "@dataclass\nclass X:\n a: list = field(default_factory=list)",
        "@dataclass(kw_only=True)\nclass X:\n a: int",
        "@dataclass\nclass X(Y):\n a: int",
        "@dataclass\nclass X:\n a: int = 1\n b: int",
        "@magic\nclass X:\n a: int",
        "class X(Unknown): ...",
        "class X(dict): ...",
        "X = 3",
        "X = lambda a: a",
        "import os as X",
        "class X:\n def __init__(self",
        "class X:\n x = " + "(" * 5000 + ")" * 5000,
        b"class X: ...\0",
        b"\xff\xfeclass X: ...",
        "",
    ],
)
def test_what_source_does_not_tell_is_none(package, source):
    assert package("a.X", a=source) is None


def test_class_without_constructor_takes_nothing(package):
    source = "from abc import ABC\nfrom typing import Generic, TypeVar\nT = TypeVar('T')\n"
    for bases in ("", "(object)", "(ABC)", "(Generic[T])"):
        read = package(f"a{len(bases)}.X", **{f"a{len(bases)}": f"{source}class X{bases}: ..."})
        assert (read.parameters, read.accepts_any, read.summary) == ({}, False, "")


def test_async_functions_and_every_kind_of_argument_are_read(package):
    read = package("a.f", a="async def f(a, b=-1, /, c=(1, 'x'), *rest, d, e=float('inf'), **more): 'Waits.'")
    assert defaults(read) == {"a": REQUIRED, "b": -1, "c": (1, "x"), "d": REQUIRED, "e": "float('inf')"}
    assert [name for name, parameter in read.parameters.items() if parameter.keyword_only] == ["d", "e"]
    assert isinstance(read.parameters["e"].default, Source)
    assert (read.accepts_any, read.summary) == (True, "Waits.")


def test_literal_words_are_read_where_they_are_all_of_the_annotation(package):
    source = """
import typing as t
from typing import Literal, Optional, Union
Angular = Literal["cosine", "linear"]
str = str
def f(
    a: Literal["x"], b: t.Literal["x", 2] | None, c: Optional[Angular], d: Union[Literal["x"], Angular],
    e: Literal["x"] | int, g: "str", h: list[Literal["x"]], i: str, j: Literal[A.B], k,
): ...
"""
    words = {name: parameter.words for name, parameter in package("a.f", a=source).parameters.items()}
    assert words == {
        "a": ("x",),
        "b": ("x", 2, None),
        "c": ("cosine", "linear", None),
        "d": ("x", "cosine", "linear"),
        **dict.fromkeys("eghijk", ()),
    }


def test_names_and_sources_beyond_ascii_are_read(package):
    assert defaults(package("größe.Größe", größe="class Größe:\n def __init__(self, größe=1.5): ...")) == {
        "größe": 1.5
    }
    latin = "# -*- coding: latin-1 -*-\nclass X:\n 'Länge.'\n".encode("latin-1")
    assert package("b.X", b=latin).summary == "Länge."


def test_invalid_escapes_in_other_peoples_source_do_not_warn(package):
    assert package("a.X", a='class X:\n "A \\d escape."').summary == "A \\d escape."


def test_packages_without_init_are_walked(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "bare_space" / "inner").mkdir(parents=True)
    (tmp_path / "bare_space" / "inner" / "a.py").write_text("def f(x=1): ...")
    assert defaults(signature("bare_space.inner.a.f")) == {"x": 1}
    assert signature("bare_space.inner") is None


@pytest.mark.parametrize(
    "target",
    [
        "",
        ".",
        "..",
        "a..b",
        "../torch.nn.ReLU",
        "torch/nn.ReLU",
        "torch.nn.\0",
        "torch.nn.ReLU ",
        "\udc80.X",
        "torch",
        "torch.nn",
        "torch.nn.Nope",
        "torch.nn.ReLU.forward",
        "no_such_package.X",
        "__main__.X",
        "builtins.dict",
        "sys.exit",
        "math.sin",
        "torch." + "x" * 10_000,
        "a." * 1200,
        None,
        3,
        ["x"],
        {},
    ],
    ids=lambda target: ascii(target)[:20],
)
def test_weird_targets_are_none(target):
    assert signature(target) is None


def test_reading_imports_nothing_and_runs_nothing(tmp_path):
    (tmp_path / "explosive").mkdir()
    (tmp_path / "explosive" / "__init__.py").write_text("raise SystemExit(7)\n")
    (tmp_path / "explosive" / "a.py").write_text("raise SystemExit(8)\ndef f(x=1): ...\n")
    script = """
import sys
from cnnlab.signature import signature
read = [signature(t) for t in ("torch.optim.Adam", "pytorch_lightning.Trainer", "explosive.a.f")]
assert all(read), read
assert not {"torch", "pytorch_lightning", "explosive"} & set(sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], env={"PYTHONPATH": str(tmp_path)}, capture_output=True
    )
    assert (done.returncode, done.stderr) == (0, b"")
