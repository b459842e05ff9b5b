"""The command-line options of a generator, read from the source of its class.

Importing the class would import torch, which takes seconds; ``--help`` must not. The signature of ``__init__`` is
therefore parsed, and annotations and defaults are evaluated without running the module.
"""

import ast
import builtins
import importlib
import os
from collections.abc import Collection
from dataclasses import MISSING, field, make_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import docstring_parser
import tyro

from viewgen.loading import generator_module

PLAIN = (str, int, float, bool, Path)  # types that a command line can express
IMPORTED = ("collections.abc", "os", "pathlib", "typing")  # modules whose names are evaluated; others are opaque


def options_dataclass(generator: str, without: Collection[str] = ()) -> type:
    """Return a dataclass with a field for every option of a generator that a command line can express.

    Args:
        generator: a key of ``GENERATORS``; the docstring of its class describes the parameters of ``__init__``.
        without: parameters to leave out.

    Raises:
        ValueError: if the generator is unknown.
    """
    module, name = generator_module(generator)
    source = _Source(module)
    kind = next(node for node in source.body if isinstance(node, ast.ClassDef) and node.name == name)
    init = next(node for node in kind.body if isinstance(node, ast.FunctionDef) and node.name == "__init__")
    docs = docstring_parser.parse(ast.get_docstring(kind) or "").params
    texts = {parameter.arg_name: parameter.description for parameter in docs}
    fields = []
    for argument, default in _parameters(init):
        hint = None if argument.annotation is None else _expressible(source.evaluate(argument.annotation))
        if hint is None or argument.arg in without:
            continue
        value = MISSING if default is None else source.evaluate(default)
        fields.append(
            (argument.arg, Annotated[hint, tyro.conf.arg(help=texts.get(argument.arg))], field(default=value))
        )
    return make_dataclass(f"{name}Options", fields, frozen=True, kw_only=True)


def _parameters(init: ast.FunctionDef) -> list[tuple[ast.arg, ast.expr | None]]:
    """Return the parameters after ``self``, each with its default."""
    positional = [*init.args.posonlyargs, *init.args.args]
    defaults = [None] * (len(positional) - len(init.args.defaults)) + init.args.defaults
    pairs = [*zip(positional, defaults, strict=True), *zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True)]
    return pairs[1:]


class _Opaque(type):
    """The class of stand-ins for names that are not evaluated, such as ``torch.device``."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Opaque(name, (), {})


class _Source(dict):
    """The global names of one of this package's modules, evaluated from its source when they are looked up."""

    def __init__(self, module: str) -> None:
        super().__init__(vars(builtins))
        self.module = module
        path = Path(__file__).parent.joinpath(*module.split(".")[1:])
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        self.body = ast.parse(path.read_text(encoding="utf-8")).body

    def evaluate(self, expression: ast.expr) -> Any:
        """Return the value of an annotation or default."""
        return eval(compile(ast.Expression(expression), self.module, "eval"), {"__builtins__": {}}, self)

    def __missing__(self, name: str) -> Any:
        for node in self.body:
            if isinstance(node, ast.Assign) and _names(node.targets[0]) and name in _names(node.targets[0]):
                value = self.evaluate(node.value)
                names = _names(node.targets[0])
                self[name] = value if isinstance(node.targets[0], ast.Name) else value[names.index(name)]
            elif isinstance(node, ast.ImportFrom) and name in [alias.asname or alias.name for alias in node.names]:
                original = next(alias.name for alias in node.names if name == (alias.asname or alias.name))
                self[name] = self._imported(node.module or "", original)
            elif isinstance(node, ast.Import) and name in [alias.asname or alias.name for alias in node.names]:
                self[name] = importlib.import_module(name) if name in IMPORTED else _Opaque(name, (), {})
            elif isinstance(node, ast.ClassDef) and node.name == name:
                self[name] = _Opaque(name, (), {})
            if name in self:
                return self[name]
        raise KeyError(name)

    def _imported(self, module: str, name: str) -> Any:
        if module in IMPORTED:
            return getattr(importlib.import_module(module), name)
        if module.partition(".")[0] == __name__.partition(".")[0]:
            return _Source(module)[name]
        return _Opaque(name, (), {})


def _names(target: ast.expr) -> list[str]:
    """Return the names that an assignment binds."""
    elements = target.elts if isinstance(target, ast.Tuple) else [target]
    return [element.id for element in elements if isinstance(element, ast.Name)]


def _expressible(hint: Any) -> Any:
    """Return the part of a type that a command line can express, or None."""
    if get_origin(hint) is Literal or hint in PLAIN:
        return hint
    if get_origin(hint) is tuple:
        return hint if all(part is ... or _expressible(part) is not None for part in get_args(hint)) else None
    if get_origin(hint) in (Union, UnionType):
        parts = [NoneType if part is NoneType else _expressible(part) for part in get_args(hint)]
        return Union[tuple(part for part in parts if part)] if set(parts) - {NoneType, None} else None  # noqa: UP007
    return str if get_origin(hint) is os.PathLike else None
