"""Command lines whose help shows the main options first and the others in named groups. Nothing here imports torch.

An options dataclass names its groups in the class variable HELP_GROUPS = {"sampling": ("steps", "guidance"), ...};
options in no group are the main ones. Options keep their names, on the command line and in Python.
"""

from __future__ import annotations

import ast
import functools
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, make_dataclass
from itertools import pairwise
from typing import Annotated, Any, TypeVar, get_type_hints

import tyro

from genviews.overrides import override
from genviews.suggestions import suggest

Options = TypeVar("Options")


@dataclass(frozen=True)
class Option:
    """One option of a command.

    Attributes:
        name: name of the field.
        hint: its annotation, with the help text.
        default: its default; `tyro.MISSING` if it is required.
    """

    name: str
    hint: Any
    default: Any

    @property
    def positional(self) -> bool:
        """Whether it is given without a name."""
        return tyro.conf.Positional in _metadata(self.hint)

    @property
    def flags(self) -> list[str]:
        """Names on the command line, with --no-NAME for a switch; none for a positional or hidden one."""
        if self.positional or "Suppress" in str(self.hint):
            return []
        given = [getattr(each, "name", None) for each in _metadata(self.hint)]
        named = "--" + (next(filter(None, given), None) or self.name.replace("_", "-"))
        aliases = [alias for each in _metadata(self.hint) for alias in getattr(each, "aliases", None) or ()]
        negated = ["--no-" + named.removeprefix("--")] if isinstance(self.default, bool) else []
        return [named, *aliases, *negated]


def options_of(kind: type[Any], default: Any = None) -> list[Option]:
    """Return the options of a dataclass and of the dataclasses that are its fields.

    Args:
        kind: options dataclass.
        default: instance with the defaults; needed if fields are dataclasses.
    """
    return list(_options_of(kind, default))


def parse_grouped(
    kind: type[Options], arguments: Sequence[str], *, prog: str, description: str, default: Options | None = None
) -> Options:
    """Parse a command line.

    Args:
        kind: options dataclass.
        arguments: the command line.
        prog: name of the command.
        description: help text.
        default: instance with the defaults; needed if fields are dataclasses.

    Raises:
        ValueError: there is no such option; the message suggests similar names.
    """
    options = options_of(kind, default)
    require_known(arguments, [flag for option in options for flag in option.flags], prog)
    parser = _grouped(kind, options, getattr(kind, "HELP_GROUPS", {}))
    parsed = tyro.cli(parser, args=arguments, prog=prog, description=description, config=(tyro.conf.OmitArgPrefixes,))
    values = dict(_values(parsed))
    if default is None:
        return kind(**values)
    return override(default, values, job=prog)


def require_known(arguments: Sequence[str], known: Sequence[str], prog: str) -> None:
    """Check the names of the options on a command line.

    Raises:
        ValueError: there is no such option; the message suggests similar names.
    """
    known = [*known, "--help", "--config"]
    for word in arguments:
        name = word.partition("=")[0].replace("_", "-")
        if word.startswith("--") and len(word) > 2 and name not in known:
            hint = suggest(name, known, otherwise=f"{prog} --help shows all")
            raise ValueError(f"expected an option of {prog}, got {name}; {hint}")


def _options_of(kind: type[Any], default: Any) -> Iterator[Option]:
    hints, texts = get_type_hints(kind, include_extras=True), field_texts(kind)
    for each in fields(kind):
        value = _default(each) if default is None else getattr(default, each.name)
        if "Fixed" in str(each.type):
            continue
        if is_dataclass(value):
            yield from _options_of(type(value), value)
        else:
            yield Option(each.name, Annotated[hints[each.name], _help(texts.get(each.name, ""), each, value)], value)


def _help(text: str, each: Any, value: Any) -> Any:
    """Return the help of an option, without "default: None" and without "None or" before the type."""
    if value is not None:
        return tyro.conf.arg(help=text)
    single = re.fullmatch(r"(?:Annotated\[)?(int|float|str|Path) \| None.*", str(each.type))
    return tyro.conf.arg(help=text, help_behavior_hint="", metavar=single[1].upper() if single else None)


def field_texts(kind: type[Any]) -> dict[str, str]:
    """Return the docstrings of the fields of a dataclass, of its base classes too, by name."""
    return {
        name: text for base in reversed(kind.__mro__) if is_dataclass(base) for name, text in _own_texts(base).items()
    }


@functools.cache
def _own_texts(kind: type[Any]) -> dict[str, str]:
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for statement, following in pairwise(body.body):
        if not (isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)):
            continue
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            found[statement.target.id] = " ".join(str(following.value.value).split())
    return found


def _grouped(kind: type[Any], options: Sequence[Option], groups: Mapping[str, Sequence[str]]) -> type[Any]:
    """Return a dataclass with the main options and a dataclass for each group."""
    group_of = {name: group for group, names in groups.items() for name in names}
    unknown = group_of.keys() - {option.name for option in options}
    assert not unknown, f"HELP_GROUPS of {kind.__name__} names {sorted(unknown)}"
    main: list[Any] = [_field(option) for option in options if option.name not in group_of]
    for number, group in enumerate(groups):
        members = [_field(option) for option in options if group_of.get(option.name) == group]
        made = make_dataclass(f"Group{number}", members, frozen=True, kw_only=True)
        hint = Annotated[made, tyro.conf.arg(name=group, help="")]
        main.append((f"group{number}", hint, field(default_factory=made)))
    return make_dataclass(kind.__name__, main, frozen=True, kw_only=True)


def _field(option: Option) -> tuple[str, Any, Any]:
    return option.name, option.hint, field(default=option.default)


def _values(parsed: Any) -> Iterator[tuple[str, Any]]:
    for each in fields(parsed):
        value = getattr(parsed, each.name)
        yield from _values(value) if is_dataclass(value) else [(each.name, value)]


def _default(each: Any) -> Any:
    if each.default_factory is not MISSING:
        return each.default_factory()
    return tyro.MISSING if each.default is MISSING else each.default


def _metadata(hint: Any) -> tuple[Any, ...]:
    return getattr(hint, "__metadata__", ())
