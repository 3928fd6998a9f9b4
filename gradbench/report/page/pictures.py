"""Pictures that a run drew, put into the page."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image

from gradbench.errors import GradbenchError
from gradbench.report.finished import Finished

COLOURS = 128
"""Enough for lines and their soft edges; a picture takes a third of its bytes."""
SEED = re.compile(r"_s(\d+)$")


@dataclass(frozen=True)
class Picture:
    """A picture in the page.

    Attributes:
        kind: `roc`, `scores` or `gradient_profile`.
        of: the detector of `scores`, "" otherwise.
        seed: of the network, "" where the run has one alone.
        uri: the picture itself.
        width: in its own pixels.
        height: likewise.
    """

    kind: str
    of: str
    seed: str
    uri: str
    width: int
    height: int


def pictures(run: Finished, several: bool) -> list[Picture]:
    """Return the pictures of a run whose data are not in its rows, by name.

    Args:
        run: the run; pictures in its folder that it did not draw are left out.
        several: whether there is one of each for every network, named after its seed.

    Raises:
        GradbenchError: if one cannot be read, is broken off or edited.
    """
    found = []
    for path in sorted((run.path / "figures").glob("*.png")):
        at = SEED.search(path.stem) if several else None
        stem = path.stem[: at.start()] if at else path.stem
        kind, _, of = stem.partition("_") if stem.startswith("scores_") else (stem, "", "")
        if kind in ("roc", "scores", "gradient_profile") and run.has(f"figures/{path.name}"):
            run.file(f"figures/{path.name}")
            found.append(Picture(kind, of, at[1] if at else "", *_embedded(path)))
    return found


def _embedded(path: Path) -> tuple[str, int, int]:
    """Return a picture as data URI, with its width and height."""
    buffer = BytesIO()
    try:
        with Image.open(path) as picture:
            size = picture.size
            few = picture.convert("RGB").quantize(
                COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE
            )
            few.save(buffer, "PNG", optimize=True)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as fault:
        raise GradbenchError(f"the picture {path} cannot be read: {fault}") from fault
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}", *size
