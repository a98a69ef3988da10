"""What a class or function takes and what it says, read from its source without importing it.

Importing torch takes 1.5 s and Lightning 3 s; a mistyped argument is to be answered in a fraction of that.

>>> adam = signature("torch.optim.Adam")
>>> adam.summary
'Implements Adam algorithm.'
>>> adam.parameters["betas"].default, adam.parameters["params"].default is REQUIRED
((0.9, 0.999), True)
"""

import ast
import functools
import importlib.util
import inspect
import itertools
import os.path
import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

REQUIRED = inspect.Parameter.empty
WITHOUT_CONSTRUCTOR = {"object", "ABC", "Generic", "Protocol"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


class Source(str):
    """A default that is not a literal, as it is written: `float("inf")`."""


class Parameter(NamedTuple):
    default: Any  # a Python literal, else Source; REQUIRED where there is none
    keyword_only: bool
    annotation: str  # as it is written, "" where there is none
    words: tuple[Any, ...]  # those of Literal["a", "b"] (an alias in the same module is followed), else ()


class Signature(NamedTuple):
    summary: str  # the docstring's first line, or ""
    parameters: dict[str, Parameter]  # in order, without self, *args and **kwargs
    accepts_any: bool  # has **kwargs
    file: Path  # where the class or function is defined


class Module(NamedTuple):
    name: str
    file: Path
    body: tuple[ast.stmt, ...]


class Definition(NamedTuple):
    module: Module
    node: ast.AST


Found = Module | Definition | None


def signature(target: str) -> Signature | None:
    """What `target` (a dotted path) takes, or None where its source does not tell; never raises."""
    try:
        return _signature(target) if isinstance(target, str) else None
    except (ImportError, RecursionError, SyntaxError):
        # a relative import beyond the top, absurd nesting, fields that no dataclass can have
        return None


@functools.cache
def _signature(target: str) -> Signature | None:
    found = find(target, set())
    if not isinstance(found, Definition):
        return None
    called = constructor(found) if isinstance(found.node, ast.ClassDef) else found
    if called is None or not isinstance(called.node, Function):
        return None  # built in, or a value
    parameters = read_arguments(called.node.args, called.module)
    if found.node is not called.node:
        parameters.pop(next(iter(parameters), ""), None)  # self
    return Signature(summary(found), parameters, called.node.args.kwarg is not None, found.module.file)


@functools.cache
def module(name: str) -> Module | None:
    """The parsed source of a module. Only the finder of its top-level package is asked, nothing is run."""
    top, *rest = name.split(".")
    if not all(part.isidentifier() for part in (top, *rest)):
        return None
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, AttributeError, ValueError):  # ValueError: a module without __spec__, as __main__
        return None
    file = spec.origin if spec else None
    folders = list(spec.submodule_search_locations or ()) if spec else []
    for part in rest:
        paths = [os.path.join(folder, part) for folder in folders]
        files = [path + end for path in paths for end in ("/__init__.py", ".py")]
        file = next(filter(os.path.isfile, files), None)
        # the folder of a package; without an __init__.py all of that name together are one
        folders = [path for path in paths if (f"{path}/__init__.py" == file if file else os.path.isdir(path))]
    if file is None:
        return Module(name, Path(folders[0]), ()) if folders else None
    if not file.endswith(".py"):
        return None
    try:
        with warnings.catch_warnings(action="ignore"):  # invalid escapes in other people's source
            return Module(name, Path(file), tuple(flat(ast.parse(Path(file).read_bytes()).body)))
    except (OSError, SyntaxError, ValueError, MemoryError):
        return None


def flat(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements without their `if` and `try`; the main branch comes last, for the last binding wins."""
    for statement in body:
        match statement:
            case ast.If():
                yield from flat(statement.orelse + statement.body)
            case ast.Try():
                yield from flat([line for handler in statement.handlers for line in handler.body])
                yield from flat(statement.body + statement.orelse)
            case _:
                yield statement


def find(path: str, seen: set[str], *, as_module: bool = False) -> Found:
    """Follow an absolute dotted name through imports and re-exports to the module or definition it names.

    Where a name is both a module and something inside its package, `as_module` decides; preferring the
    module also spares parsing the likes of torch/__init__.py.
    """
    if as_module and (submodule := module(path)):
        return submodule
    owner, _, name = path.rpartition(".")
    if owner and path not in seen:
        seen.add(path)
        home = find(owner, seen, as_module=True)
        if isinstance(home, Module) and home.name != owner:  # `owner` goes by another name there
            return find(f"{home.name}.{name}", seen, as_module=as_module)
        if isinstance(home, Module):
            for statement in reversed(home.body):
                if found := bound(name, statement, home, seen, as_module):
                    return found
    return module(path)


def bound(name: str, statement: ast.stmt, home: Module, seen: set[str], as_module: bool) -> Found:
    """What a statement of module `home` binds to `name`."""
    match statement:
        case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef() if statement.name == name:
            return Definition(home, statement)
        case ast.Assign(targets=[ast.Name(id=target)], value=value) if target == name:
            return resolve(value, home, seen) or Definition(home, value)
        case ast.Import():
            for alias in statement.names:
                if name == (alias.asname or alias.name.partition(".")[0]):
                    return find(alias.name if alias.asname else name, seen, as_module=as_module)
        case ast.ImportFrom():
            package = home.name if home.file.name == "__init__.py" else home.name.rpartition(".")[0]
            source = importlib.util.resolve_name("." * statement.level + (statement.module or ""), package)
            for alias in statement.names:
                if name == (alias.asname or alias.name):
                    return find(f"{source}.{alias.name}", seen, as_module=as_module)
                if alias.name == "*" and not name.startswith("_"):
                    return find(f"{source}.{name}", seen, as_module=as_module)
    return None


def resolve(expression: ast.AST, home: Module, seen: set[str]) -> Found:
    """What a name such as `nn.Conv2d` stands for in a module."""
    if not isinstance(expression, ast.Name | ast.Attribute):
        return None
    return find(f"{home.name}.{ast.unparse(expression)}", seen)


def constructor(of: Definition) -> Definition | None:
    """The function whose arguments a class takes, or None where the source does not tell."""
    for ancestor in ancestry(of):
        if not isinstance(ancestor.node, ast.ClassDef):
            return None
        method: ast.stmt | None = own(ancestor.node, "__init__") or own(ancestor.node, "__new__")
        if method or ancestor.node.decorator_list:  # another decorator may write a constructor unseen
            method = method or dataclass_init(ancestor.node)
            return Definition(ancestor.module, method) if method else None
    return Definition(of.module, ast.parse("def __init__(self): ...").body[0])


def own(of: ast.ClassDef, method: str) -> Function | None:
    """A method that the class itself defines."""
    found = [node for node in flat(of.body) if isinstance(node, Function) and node.name == method]
    return found[-1] if found else None


def ancestry(of: Definition, below: tuple[ast.AST, ...] = ()) -> Iterator[Definition]:
    """A class and its bases in the order Python asks them; a base not found stays as its expression."""

    def line(base: ast.expr) -> Iterable[Definition]:
        found = resolve(base, of.module, set())
        if isinstance(found, Definition) and found.node not in below:
            return ancestry(found, (*below, of.node))
        return [Definition(of.module, base)]

    yield of
    bases = of.node.bases if isinstance(of.node, ast.ClassDef) else []
    bases = [base.value if isinstance(base, ast.Subscript) else base for base in bases]  # Generic[T]
    bases = [base for base in bases if ast.unparse(base).rpartition(".")[2] not in WITHOUT_CONSTRUCTOR]
    rest: Iterable[Definition] = itertools.chain.from_iterable(map(line, bases))  # each may cost a file
    if len(bases) > 1:  # a shared base comes after all that share it
        rest = [*{id(each.node): each for each in reversed([*rest])}.values()][::-1]
    yield from rest


def dataclass_init(of: ast.ClassDef) -> ast.stmt | None:
    """The constructor @dataclass writes; None for other decorators and for what needs more than a list."""
    fields = [node for node in flat(of.body) if isinstance(node, ast.AnnAssign)]
    written = [text for text in map(ast.unparse, fields) if "ClassVar" not in text]
    made_by = [ast.unparse(decorator) for decorator in of.decorator_list]
    simple = re.compile(r"(dataclasses\.)?dataclass(\((?!.*\b(init|kw_only)=).*\))?")
    if of.bases or not all(map(simple.fullmatch, made_by)) or re.search(r"field\(|KW_ONLY", "".join(written)):
        return None
    return ast.parse(f"def __init__({', '.join(['self', *written])}): ...").body[0]


def read_arguments(arguments: ast.arguments, home: Module) -> dict[str, Parameter]:
    positional = arguments.posonlyargs + arguments.args
    required = [None] * (len(positional) - len(arguments.defaults))
    defaults = [*required, *arguments.defaults, *arguments.kw_defaults]
    return {
        argument.arg: Parameter(
            REQUIRED if default is None else literal(default),
            argument in arguments.kwonlyargs,
            ast.unparse(argument.annotation) if argument.annotation else "",
            words(argument.annotation, home),
        )
        for argument, default in zip(positional + arguments.kwonlyargs, defaults, strict=True)
    }


def literal(expression: ast.expr) -> Any:
    try:
        return ast.literal_eval(expression)
    except (ValueError, TypeError):
        return Source(ast.unparse(expression))


def words(annotation: ast.expr | None, home: Module, seen: tuple[str, ...] = ()) -> tuple[Any, ...]:
    """The values an annotation spells out one by one, or () where it leaves any other open."""
    members: list[ast.expr] = []
    match annotation:
        case ast.Constant(value=None):
            return (None,)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            members = [left, right]
        case ast.Subscript(value=kind, slice=inside):
            inner = list(inside.elts) if isinstance(inside, ast.Tuple) else [inside]
            match ast.unparse(kind).rpartition(".")[2]:
                case "Literal":
                    values = tuple(map(literal, inner))
                    return () if any(isinstance(value, Source) for value in values) else values
                case "Union" | "Optional" as name:
                    members = inner + [ast.Constant(None)] * (name == "Optional")
        case ast.Name(id=name) if name not in seen:
            for statement in reversed(home.body):
                match statement:
                    case ast.Assign(targets=[ast.Name(id=target)], value=value) if target == name:
                        return words(value, home, (*seen, name))
    each = [words(member, home, seen) for member in members]
    return sum(each, ()) if all(each) else ()


def summary(of: Definition) -> str:
    """The first line of its docstring, else of the nearest base's, else of the constructor's."""
    text = said(of) or next(filter(None, map(said, ancestry(of))), None)
    if not text and isinstance(of.node, ast.ClassDef) and (method := own(of.node, "__init__")):
        text = ast.get_docstring(method)
    return inspect.cleandoc(text or "").strip().partition("\n")[0]


def said(of: Definition) -> str | None:
    """The docstring of a class or function, or the `__doc__ = ...` in or after it."""
    if not isinstance(of.node, Function | ast.ClassDef):
        return None
    for body, name in [(of.module.body, f"{of.node.name}.__doc__"), (of.node.body, "__doc__")]:
        for statement in body:
            if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == name:
                return leading_text(statement.value)
    return ast.get_docstring(of.node)


def leading_text(expression: ast.expr) -> str | None:
    """The string that an expression such as `"...".format(x) + "..."` begins with."""
    match expression:
        case ast.Constant(value=str(text)):
            return text
        case ast.BinOp(left=first) | ast.Call(func=ast.Attribute(value=first)):
            return leading_text(first)
    return None
