"""Pages that open without a network: one file with its style, pictures and charts inside, readable in the dark and on a phone."""

from __future__ import annotations

from typing import Any


def render_page(package: str, template: str, **content: Any) -> str:
    """A page as text.

    Args:
        package: Whose ``templates/`` holds the template; it can include ``page.css``, the common style.
        template: Name of the template.
        content: What the template names; a name that is missing is an error.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package, "templates"), PackageLoader("r2seg.pictures", "templates")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**content)
