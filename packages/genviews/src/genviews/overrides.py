"""Options given by keyword: nested option dataclasses are set by the names of their fields."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from genviews.suggestions import suggest

Options = TypeVar("Options")


def override(options: Options, overrides: Mapping[str, Any], *, job: str) -> Options:
    """Return options with some fields replaced, in the dataclass itself or in those that are its fields.

    Args:
        options: an instance of a frozen dataclass.
        overrides: new values by field name; strings are accepted for paths.
        job: name of the job, for the error message.

    Raises:
        ValueError: there is no such field; the message suggests similar names.
    """
    known = {name: owner for owner, name in _names(options)}
    _check_names(overrides, known, job)
    changes: dict[str | None, dict[str, Any]] = {}
    for name, value in overrides.items():
        changes.setdefault(known[name], {})[name] = value
    for owner, values in changes.items():
        if owner is None:
            options = _replace(options, values)
        else:
            options = _replace(options, {owner: _replace(getattr(options, owner), values)})
    return options


def from_keywords(kind: type[Options], given: Mapping[str, Any], *, job: str) -> Options:
    """Return options of a flat dataclass from keywords.

    Raises:
        ValueError: there is no such field, or a required one is missing.
    """
    known = [field.name for field in fields(kind)]  # pyright: ignore[reportArgumentType]
    _check_names(given, known, job)
    try:
        made = kind(**given)
    except TypeError as error:
        raise ValueError(f"genviews.{job}: {error}") from None
    return _replace(made, given)


def _check_names(given: Iterable[str], known: Collection[str], job: str) -> None:
    for name in given:
        if name not in known:
            hint = suggest(name, known, otherwise=f"choose among {', '.join(sorted(known))}")
            raise ValueError(f"expected an option of genviews.{job}, got {name!r}; {hint}")


def _names(options: Any) -> Iterator[tuple[str | None, str]]:
    """Yield (field that holds the dataclass or None, field name); names of the outer dataclass come last and win."""
    for field in fields(options):
        value = getattr(options, field.name)
        if is_dataclass(value):
            yield from ((field.name, inner.name) for inner in fields(value))
    yield from ((None, field.name) for field in fields(options))


def _replace(options: Any, values: Mapping[str, Any]) -> Any:
    types = {field.name: str(field.type) for field in fields(options)}
    paths = {name for name, value in values.items() if isinstance(value, str) and "Path" in types[name]}
    return replace(options, **{name: Path(value) if name in paths else value for name, value in values.items()})
