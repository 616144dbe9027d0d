"""Self-contained HTML pages from templates: `templates/` of this package and of those that fill them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import jinja2


def render(
    template: str, *packages: str, filters: Mapping[str, Callable[..., str]] | None = None, **values: Any
) -> str:
    """A page.

    Args:
        template: Name of the template.
        packages: Where it and what it includes are looked for, before this package.
        filters: What else the templates may call.
        values: What they show; it is escaped, and a name that is missing is an error.
    """
    environment = _environment(packages)
    environment.filters |= filters or {}
    return environment.get_template(template).render(values)


@cache  # it keeps its templates compiled: a run writes many pages
def _environment(packages: tuple[str, ...]) -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(name) for name in (*packages, "world4rl.pages")]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
