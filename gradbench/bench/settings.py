"""What a benchmark is measured under, and the command line that says so. Imports no torch."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from gradbench.errors import GradbenchError, unknown

PRECISIONS = ("float32", "tf32", "bfloat16", "float16", "float64")
DEFAULT_OUT = Path("results/bench")


@dataclass(frozen=True)
class Settings:
    """One condition: a network, its images and how they are computed.

    Args:
        backbone: member of `configs/backbone/`, torchvision:NAME or timm:NAME.
        width: its width where it has one; None is the one of its file.
        batch: images in the batch.
        image_size: height and width in pixels.
        device: cpu, cuda, or cuda:0 and so on.
        threads: of torch on the processor; None means all.
        precision: float32 (TF32 off), tf32, bfloat16 or float16 (autocast), float64; empty where
            several are compared.
        folders: of --config-dir.
    """

    backbone: str = "resnet18"
    width: int | None = None
    batch: int = 64
    image_size: int = 32
    device: str = "cpu"
    threads: int | None = None
    precision: str = "float32"
    folders: tuple[str, ...] = ()


class Parser(argparse.ArgumentParser):
    """A command line whose mistakes are answered in one sentence, like all others."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage."""
        raise GradbenchError(f"{self.prog}: {message}; `{self.prog} --help` tells more")


def positive(text: str) -> int:
    """Return a whole number of at least 1."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no whole number of at least 1")
    return int(text)


def cores(text: str) -> int:
    """Return a number of threads that the machine has cores for."""
    number, most = positive(text), os.cpu_count() or 1
    if number > most:
        raise argparse.ArgumentTypeError(f"{number} threads are more than the {most} cores here")
    return number


def add_condition(parser: argparse.ArgumentParser, without: Collection[str] = ()) -> None:
    """Add the options that make up `Settings`, but for those without meaning."""
    usual = Settings()
    group = parser.add_argument_group("condition")
    for option, metavar, kind, what in (
        ("backbone", "NAME", str, "of `gradbench list backbones`, torchvision:NAME or timm:NAME"),
        ("width", "N", positive, "channels of its first stage (the one of its file)"),
        ("batch", "N", positive, "images in the batch"),
        ("image_size", "PIXELS", positive, "height and width of the images"),
        ("device", "NAME", str, "cpu, cuda, cuda:1"),
        ("threads", "N", cores, "threads of the processor (all)"),
        ("precision", "NAME", str, f"{', '.join(PRECISIONS)}; TF32 is off but in tf32"),
    ):
        if option in without:
            continue
        default = getattr(usual, option)
        shown = f"{what} ({default})" if default else what
        name = f"--{option.replace('_', '-')}"
        group.add_argument(name, type=kind, default=default, metavar=metavar, help=shown)
    group.add_argument("--config-dir", metavar="DIR", help="your own configuration files")


def condition(given: argparse.Namespace) -> Settings:
    """Return the settings of a parsed command line.

    Raises:
        GradbenchError: for an unknown precision or a folder that is not there.
    """
    if "precision" in given and given.precision not in PRECISIONS:
        raise unknown("precision", given.precision, PRECISIONS)
    folder = given.config_dir
    if folder and not Path(folder).is_dir():
        raise GradbenchError(f"--config-dir {folder}: there is no such folder")
    folders = (str(Path(folder).absolute()),) if folder else ()
    names = ("backbone", "width", "batch", "image_size", "device", "threads", "precision")
    return Settings(**{name: getattr(given, name, "") for name in names}, folders=folders)


def file_stem(subject: str, settings: Settings, accelerator: str = "", *more: str) -> str:
    """Return a file name that spells the whole condition.

    >>> file_stem("engine", Settings(width=64, threads=2))
    'engine-resnet18-w64-b64-32px-cpu-2threads-float32'

    Args:
        subject: what is measured.
        settings: with width and threads filled in.
        accelerator: name of the GPU, which stands in the place of the threads.
        more: what else belongs to the condition.
    """
    kind = settings.device.split(":")[0]
    threads = f"{settings.threads}thread{'s' if settings.threads != 1 else ''}"
    machine = accelerator.lower() or threads
    parts = [subject, settings.backbone]
    parts += [f"w{settings.width}"] if settings.width else []
    parts += [f"b{settings.batch}", f"{settings.image_size}px", kind, machine]
    parts += [settings.precision, *more] if settings.precision else more
    return "-".join(re.sub(r"[^\w.]+", "_", part) for part in parts)
