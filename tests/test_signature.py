"""What is read from source equals what the imported object says of itself."""

import importlib
import inspect
import itertools
import subprocess
import sys
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


@pytest.fixture(name="package")
def written_package(tmp_path, monkeypatch):
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
