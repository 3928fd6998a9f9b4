"""A tiny tree in the layout of CURE-TSR: signs drawn here, under names of the right grammar."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from gradbench.data.cure_tsr import FOLDERS, FREE, folder_of

SHAPES = ("circle", "square", "triangle", "diamond")
COLOURS = ("red", "blue", "gold", "white")


def draw(kind: int, index: int) -> Image.Image:
    """Draw a sign of one of the 14 kinds; its size, place and background go by the index."""
    rng = np.random.default_rng([kind, index])
    side = int(rng.integers(18, 40))
    grey = rng.integers(60, 120, (side, side, 3), dtype=np.uint8)
    picture = Image.fromarray(grey)
    pen = ImageDraw.Draw(picture)
    low, high = side * 0.15 + rng.integers(0, 3), side * 0.85
    mid = (low + high) / 2
    colour, shape = COLOURS[kind % 4], SHAPES[kind // 4]
    if shape == "circle":
        pen.ellipse((low, low, high, high), fill=colour)
    elif shape == "square":
        pen.rectangle((low, low, high, high), fill=colour)
    elif shape == "triangle":
        pen.polygon(((low, high), (high, high), (mid, low)), fill=colour)
    else:
        pen.polygon(((mid, low), (high, mid), (mid, high), (low, mid)), fill=colour)
    return picture


def darkened(picture: Image.Image, level: int) -> Image.Image:
    """Return a challenge that is easy to check: a share of the light, less at every level."""
    return picture.point(lambda value: value * (10 - level) // 10)


def plant(
    root: Path,
    split: str = "Test",
    kinds: range = range(1, 15),
    each: int = 4,
    challenges: dict[str, tuple[int, ...]] | None = None,
    world: str = "Real",
) -> Path:
    """Write a split, with the levels of each type of challenge, and return its folder."""
    top = root / "CURE-TSR" / f"{world}_{split}"
    number = 1 if world == "Real" else 2
    wanted = {(0, 0): FREE}
    for kind, levels in (challenges or {}).items():
        challenge = [*FOLDERS].index(kind) + 1
        wanted |= {(challenge, level): folder_of(challenge, level) for level in levels}
    for (challenge, level), name in wanted.items():
        (top / name).mkdir(parents=True, exist_ok=True)
        for kind in kinds:
            for index in range(1, each + 1):
                file = f"{number:02d}_{kind:02d}_{challenge:02d}_{level:02d}_{index:04d}.bmp"
                picture = draw(kind, index + (1000 if split == "Train" else 0))
                darkened(picture, level).save(top / name / file)
    return top
