"""Text measured before it is drawn, and broken into lines that fit."""

from __future__ import annotations

import re
from collections.abc import Iterator

from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.font_manager import FontProperties

HEAD, BODY, SMALL = 9.5, 7.5, 6.5
"""Points of titles, of notes and labels, and of captions."""
SPACING = 1.2
"""Distance of lines, in heights of the tallest letters."""


class Lettering:
    """Measures text in pixels.

    Args:
        dpi: pixels in an inch.
    """

    def __init__(self, dpi: int):
        self._renderer = RendererAgg(8, 8, dpi)
        self._known: dict[tuple[str, float], int] = {}

    def width(self, text: str, size: float) -> int:
        """Return the pixels across of the longest line; titles (`HEAD`) are bold."""
        return max(self._line(line, size) for line in text.split("\n"))

    def height(self, text: str, size: float) -> int:
        """Return the pixels down of all lines, with the space to what follows."""
        high = self._tallest(size)[0]
        return round(SPACING * high * (text.count("\n") + 1) + 0.35 * high)

    def baselines(self, text: str, size: float, y: int, down: str) -> list[tuple[float, str]]:
        """Return where the baseline of each line lies, whatever letters it has.

        Args:
            text: of one or more lines.
            size: in points.
            y: in pixels from above.
            down: `top`, `center` or `bottom`: what of the text lies at y.
        """
        high, below = self._tallest(size)
        lines = text.split("\n")
        step = SPACING * high
        tall = step * (len(lines) - 1) + high
        y -= {"top": 0, "center": tall / 2, "bottom": tall}[down]
        return [(y + high - below + step * place, line) for place, line in enumerate(lines)]

    def _tallest(self, size: float) -> tuple[float, float]:
        """Return height and descent of the letters."""
        found = self._renderer.get_text_width_height_descent("lp", _font(size), False)
        return found[1], found[2]

    def wrapped(self, text: str, width: int, size: float) -> str:
        """Break text into lines of at most so many pixels.

        At spaces, a longer word after its underscores; what is longer still is cut.
        """
        lines: list[str] = []
        for paragraph in text.split("\n"):
            line = ""
            for word, space in self._words(paragraph, width, size):
                longer = f"{line}{space}{word}" if line else word
                if line and self._line(longer, size) > width:
                    lines.append(line)
                    longer = word
                line = self._cut(longer, width, size)
            lines.append(line)
        return "\n".join(lines)

    def _words(self, text: str, width: int, size: float) -> Iterator[tuple[str, str]]:
        """Yield words, those that are too long in parts, and what stands before each."""
        for word in text.split(" "):
            parts = [word]
            if self._line(word, size) > width:
                parts = re.findall(r"[^_]*_+|[^_]+", word)
            for place, part in enumerate(parts):
                yield part, "" if place else " "

    def _cut(self, line: str, width: int, size: float) -> str:
        if self._line(line, size) <= width:
            return line
        while line and self._line(f"{line}…", size) > width:
            line = line[:-1]
        return f"{line}…"

    def _line(self, line: str, size: float) -> int:
        if (line, size) not in self._known:
            found = self._renderer.get_text_width_height_descent(line, _font(size), False)
            self._known[line, size] = round(found[0])
        return self._known[line, size]


def _font(size: float) -> FontProperties:
    return FontProperties(size=size, weight="bold" if size == HEAD else "normal")
