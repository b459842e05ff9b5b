"""Self-contained HTML pages from one base template: Jinja templates with inlined style and script."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, PrefixLoader, StrictUndefined
from markupsafe import Markup


def render_page(package: str, filters: Mapping[str, Callable[..., Any]] | None = None, **values: Any) -> str:
    """Render `page.html.j2` of a package, with `page.css` and `page.js` inlined.

    The template extends `base/base.html.j2`, whose style it inherits, and fills its blocks `body` and `policy` (sources
    that the content security policy allows besides inline style and script). Values are escaped.

    Args:
        package: the package that contains the three files, such as "ssl_eval.report".
        filters: further filters of the template.
        values: variables of the template; `title` is the title of the page.
    """
    environment = Environment(
        loader=ChoiceLoader(
            [PackageLoader(package, "."), PrefixLoader({"base": PackageLoader("ssl_eval.report", ".")})]
        ),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= dict(filters or {})
    style = _read("ssl_eval.report", "base.css") + _read(package, "page.css")
    values |= {"css": Markup(style), "script": Markup(_read(package, "page.js"))}
    return environment.get_template("page.html.j2").render(**values)


def _read(package: str, name: str) -> str:
    return files(package).joinpath(name).read_text(encoding="utf-8")
