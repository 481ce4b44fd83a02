"""Open the Jinja templates that a package's HTML and SVG pages are made from."""

from __future__ import annotations

import base64

from jinja2 import Environment, PackageLoader, StrictUndefined


def page_templates(package: str) -> Environment:
    """Return the templates in a package's folder `templates`.

    Values are escaped, and a missing value is an error. Two filters are added: `number` writes a
    coordinate without needless digits, `data_url` puts an image into the page.

    Args:
        package: Import name of the package.
    """
    templates = Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters["number"] = lambda value: f"{value:g}"
    templates.filters["data_url"] = _data_url
    return templates


def _data_url(image: bytes) -> str:
    """Return an address that holds a JPEG itself, so that a page loads nothing."""
    return f"data:image/jpeg;base64,{base64.b64encode(image).decode()}"
