"""Pages that need nothing but themselves: the template's environment, style and colours."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from gradbench.report.page.pieces import blocks, prose, table


@cache
def environment() -> Environment:
    """Return the environment of the templates; a name that is not given is a fault."""
    found = Environment(
        loader=PackageLoader("gradbench.report.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.globals.update(blocks=blocks, table=table, style=_style())
    found.filters["prose"] = prose
    return found


def page(title: str, body: str) -> str:
    """Return a whole page around the HTML of a body."""
    template = environment().get_template("plain.html.jinja")
    return template.render(title=title, body=Markup(body)) + "\n"


def _style() -> Markup:
    place = files("gradbench.report.page") / "templates" / "style.css"
    return Markup(place.read_text(encoding="utf-8"))
