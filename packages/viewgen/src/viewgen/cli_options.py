"""A generator's options as the command line shows them, read off its signature and docstring."""

import inspect
import os
from dataclasses import MISSING, field, make_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import docstring_parser
import tyro

PLAIN = (str, int, float, bool, Path)


def options_dataclass(kind: type, without: set[str]) -> type:
    """A dataclass with a field for every option of a generator's class that can be written on a command line.

    Args:
        kind: the class; its docstring describes the parameters of its ``__init__``.
        without: parameters that are not options.
    """
    texts = {param.arg_name: param.description for param in docstring_parser.parse(inspect.getdoc(kind) or "").params}
    types = get_type_hints(kind.__init__)
    fields = []
    for name, parameter in list(inspect.signature(kind.__init__).parameters.items())[1:]:
        plain = _plain(types[name])
        if plain is None or name in without:
            continue
        default = MISSING if parameter.default is inspect.Parameter.empty else parameter.default
        fields.append((name, Annotated[plain, tyro.conf.arg(help=texts.get(name))], field(default=default)))
    return make_dataclass(f"{kind.__name__}Options", fields, frozen=True, kw_only=True)


def _plain(hint: Any) -> Any:
    """The part of a type that can be written on a command line, or None."""
    if get_origin(hint) is Literal or hint in PLAIN:
        return hint
    if get_origin(hint) is tuple:
        return hint if all(part is ... or _plain(part) is not None for part in get_args(hint)) else None
    if get_origin(hint) in (Union, UnionType):
        parts = [NoneType if part is NoneType else _plain(part) for part in get_args(hint)]
        return Union[tuple(part for part in parts if part)] if set(parts) - {NoneType, None} else None  # noqa: UP007
    return str if get_origin(hint) is os.PathLike else None
