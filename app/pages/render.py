"""Templates to HTML. Everything that comes from users is escaped by the environment; there are no scripts at all."""

from functools import cache
from typing import Any

# What a page may do when it is opened: show itself and the pictures inside it.
POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def render(template: str, **values: Any) -> str:
    """One page.

    Args:
        template: file in `templates/`.
        values: what it shows; a name that is missing is an error.
    """
    page: str = _environment().get_template(template).render(values)
    return page


@cache
def _environment() -> Any:
    # Imported when a page is asked for: the API's start does not pay for it.
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("app.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
