"""The exceptions that reach the user as a sentence instead of a traceback."""

import difflib
from collections.abc import Iterable


class GradbenchError(Exception):
    """A fault of the input or of the machine; its text names the culprit and the valid choices."""


class Faulty(GradbenchError):
    """A fault of one class from outside the package: it is left out, and the run goes on."""


MANY = 40
"""Of more choices than this only the nearest are named."""


def unknown(kind: str, name: str, choices: Iterable[str]) -> GradbenchError:
    """Return the error for a name that is not among the valid choices, nearest choices first.

    The name itself, which may be valid elsewhere, is never proposed.
    """
    name = str(name)  # which may be anything that was given in the place of one
    choices = sorted(choice for choice in choices if choice != name)
    name = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
    near = difflib.get_close_matches(name, choices, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    if near and len(choices) > MANY:
        return GradbenchError(f"no {kind} named '{name}': {hint.strip()}")
    return GradbenchError(f"no {kind} named '{name}': {hint}{_valid(choices)}")


def _valid(choices: list[str]) -> str:
    return f"valid choices are {', '.join(choices)}" if choices else "there are none"
