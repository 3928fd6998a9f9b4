"""What the benchmarks share: options, network and images, timing, and the table that they leave."""

from __future__ import annotations

import argparse
import gc
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from math import ceil
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from gradbench.backbones.backbone import Backbone
from gradbench.backbones.build import build_network, network_config
from gradbench.backbones.checkpoint import load_checkpoint, read_checkpoint
from gradbench.backbones.devices import find_device
from gradbench.backbones.trained_network import class_names
from gradbench.config import group_files, load_member
from gradbench.data.dataset import DataSettings
from gradbench.data.imageset import ImageSet, channel_statistics, source_ids
from gradbench.data.resample import resize_to
from gradbench.errors import GradbenchError, unknown
from gradbench.gradients.precision import arithmetic
from gradbench.report import provenance
from gradbench.support.instantiate import instantiate
from gradbench.support.progress import Progress

PRECISIONS = ("float32", "tf32", "bfloat16", "float16", "float64")
LIBRARIES = ("torchvision", "timm")
"""Libraries whose networks are taken too, as LIBRARY:NAME."""
CLASSES = 10
SETTLING_IMAGES = 8
"""Images from which batch normalisation takes its statistics where weights are random."""
SHORTEST = 0.1
"""Seconds: a shorter run is repeated within one measurement until it lasts this long."""
MAX_CALLS = 1000


def positive(text: str) -> int:
    """Return a whole number of at least 1."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no whole number of at least 1")
    return int(text)


OPTIONS: dict[str, dict[str, Any]] = {
    "backbone": {
        "default": "resnet18",
        "metavar": "NAME",
        "help": "of `gradbench list backbones`, torchvision:NAME or timm:NAME",
    },
    "width": {"type": positive, "metavar": "N", "help": "channels of its first stage"},
    "config_dir": {"type": Path, "metavar": "DIR", "help": "your own configuration files"},
    "checkpoint": {"type": Path, "metavar": "FILE", "help": "weights of the network (random ones)"},
    "dataset": {"metavar": "NAME", "help": "its test images (tiles of two photographs)"},
    "data": {"type": Path, "default": Path("data"), "metavar": "DIR", "help": "of data sets"},
    "images": {"type": positive, "default": 100, "metavar": "N", "help": "how many images"},
    "batch": {"type": positive, "default": 64, "metavar": "N", "help": "images in a batch"},
    "image_size": {"type": positive, "metavar": "PIXELS", "help": "height and width (32)"},
    "precision": {
        "choices": PRECISIONS,
        "default": "float32",
        "help": "TF32 is off but in tf32; bfloat16 and float16 by autocast",
    },
    "device": {"default": "cpu", "metavar": "NAME", "help": "cpu, cuda, cuda:1"},
    "threads": {"type": positive, "metavar": "N", "help": "threads of the processor (all)"},
    "rounds": {"type": positive, "default": 3, "metavar": "N", "help": "measurements of each"},
    "out": {
        "type": Path,
        "default": Path("results/bench"),
        "metavar": "DIR",
        "help": "folder of the CSV file",
    },
}
"""The options of all benchmarks; each takes some of them."""
CONDITION = ("backbone", "width", "batch", "image_size", "device", "threads", "precision", "rounds")


def options_parser(description: str, names: Sequence[str], **defaults: Any):
    """Return a parser of some of the `OPTIONS`, with other defaults where they are given."""
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for name in (*names, "device", "threads", "out"):
        option = OPTIONS[name] | ({"default": defaults[name]} if name in defaults else {})
        if option.get("default") is not None:
            option["help"] += f" ({option['default']})"
        parser.add_argument(f"--{name.replace('_', '-')}", **option)
    return parser


def start(options: argparse.Namespace) -> None:
    """Set torch's threads, look for the device, make the folder of the table.

    Raises:
        GradbenchError: for a device, a precision or more threads than there are, or the folder.
    """
    find_device(options.device)
    cores = os.cpu_count() or 1
    if options.threads and options.threads > cores:
        raise GradbenchError(f"--threads {options.threads}: this machine has {cores} cores")
    torch.set_num_threads(options.threads or torch.get_num_threads())
    options.threads = torch.get_num_threads()
    if getattr(options, "precision", "") == "tf32" and options.device == "cpu":
        raise GradbenchError("precision tf32 is one of NVIDIA's GPUs: name one with --device cuda")
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise GradbenchError(f"--out {options.out}: {fault.strerror}") from fault


def chosen_names(kind: str, text: str | None, valid: Sequence[str]) -> list[str]:
    """Return the names of a comma list, all valid ones without it.

    Raises:
        GradbenchError: for a name that is not valid.
    """
    names = [name.strip() for name in text.split(",")] if text else list(valid)
    for name in names:
        if name not in valid:
            raise unknown(kind, name, valid)
    return names


def main_of(main: Callable[[], None]) -> None:
    """Run a benchmark; what is wrong with its options is one sentence."""
    try:
        main()
    except GradbenchError as fault:
        print(f"{Path(sys.argv[0]).name}: {fault}", file=sys.stderr)
        sys.exit(2)


# network and images


def load_images(options: argparse.Namespace, count: int) -> ImageSet:
    """Return test images of a data set, spread evenly over it, or tiles; nothing is downloaded.

    Raises:
        GradbenchError: if there is no such set or its images are not on this machine.
    """
    size = options.image_size
    if not getattr(options, "dataset", None):
        return tiles(count, size or 32)
    content = load_member("dataset", options.dataset, _folders(options))
    dataset = instantiate("dataset", options.dataset, content)
    images = dataset.load("test", DataSettings(options.data, download=False))
    count = min(count, len(images))
    images = images.select(np.arange(count) * len(images) // count)
    return resize_to(images, (images.shape[0], size, size)) if size else images


def tiles(count: int, side: int) -> ImageSet:
    """Return tiles of two photographs, moved on from image to image, with arbitrary labels.

    Raises:
        GradbenchError: if tiles are to be larger than the photographs.
    """
    from sklearn.datasets import load_sample_images

    photos = load_sample_images().images
    if side > min(photo.shape[0] for photo in photos):
        raise GradbenchError(f"--image-size {side}: at most {photos[0].shape[0]}")
    rng = np.random.default_rng(0)
    pixels = np.empty((count, 3, side, side), np.uint8)
    for number in range(count):
        photo = photos[number % len(photos)]
        top, left = (rng.integers(0, n - side + 1) for n in photo.shape[:2])
        pixels[number] = photo[top : top + side, left : left + side].transpose(2, 0, 1)
    names = tuple(map(str, range(CLASSES)))
    labels = np.arange(count) % CLASSES
    return ImageSet(
        "tiles", "all", pixels, labels, source_ids("tiles", "all", count), classes=names
    )


def make_backbone(options: argparse.Namespace, images: ImageSet) -> tuple[Backbone, Tensor]:
    """Return the network in evaluation mode and its pixels in [0, 1], both on the device.

    Without a checkpoint weights are random, always the same, and batch normalisation takes its
    statistics from a few images, so that outputs and gradients are of the size that trained
    networks have. Mean and deviation of the pixels are the checkpoint's, or those of the images.

    Raises:
        GradbenchError: if the checkpoint is not of this network, or it cannot take the images.
    """
    checkpoint = getattr(options, "checkpoint", None)
    about = read_checkpoint(checkpoint)[1] if checkpoint else {}
    classes = about.get("classes") or class_names(images)
    network = build_model(options, len(classes), images.shape[0])
    if checkpoint:
        load_checkpoint(network, checkpoint)
    mean, std = about.get("mean"), about.get("std")
    if mean is None or std is None:
        mean, std = channel_statistics(images)
    double = getattr(options, "precision", "") == "float64"
    dtype, device = torch.float64 if double else torch.float32, find_device(options.device)
    model = Backbone(network, mean, std, classes, images.shape).to(device, dtype).eval()
    pixels = torch.from_numpy(images.images[: len(images)]).to(device, dtype) / 255
    try:
        _settle(model, pixels[:SETTLING_IMAGES], settle=not checkpoint)
    except Exception as fault:  # whatever a network raises that does not take such images
        reason = " ".join(str(fault).split())
        size = "x".join(map(str, images.shape[1:]))
        raise GradbenchError(
            f"{options.backbone} cannot take images of {size} pixels ({reason}): "
            "choose others with --image-size"
        ) from fault
    return model, pixels


def _settle(model: nn.Module, pixels: Tensor, settle: bool) -> None:
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms if settle else ():
        norm.train().momentum = None  # the plain mean over the images seen
    with torch.no_grad():
        model(pixels)
    for norm, momentum in zip(norms, momenta):
        norm.eval().momentum = momentum


def build_model(options: argparse.Namespace, classes: int, channels: int) -> nn.Module:
    """Return the network with random weights, always the same; libraries' have 1,000 classes.

    Raises:
        GradbenchError: for a backbone or a width that cannot be had here.
    """
    torch.manual_seed(0)
    library, _, name = options.backbone.partition(":")
    if library not in LIBRARIES or not name:
        return build_network(network_config(_member(options), classes, channels))
    try:
        if library == "timm":
            import timm

            known, create = timm.list_models(), timm.create_model
        else:
            from torchvision import models

            known, create = models.list_models(module=models), models.get_model
    except ImportError as fault:
        raise GradbenchError(f"{options.backbone}: {library} is not installed") from fault
    if name not in known:
        raise unknown(f"network of {library}", name, known)
    if options.width:
        raise GradbenchError(f"{options.backbone} has no width: leave out --width")
    return create(name)


def _folders(options: argparse.Namespace) -> list[Path]:
    folder = getattr(options, "config_dir", None)
    if folder and not folder.is_dir():
        raise GradbenchError(f"--config-dir {folder}: there is no such folder")
    return [folder.absolute()] if folder else []


def _member(options: argparse.Namespace) -> dict[str, Any]:
    """Return the backbone's file with the width that is asked for, which `options` then has too."""
    folders = _folders(options)
    members = group_files("backbone", folders)
    if options.backbone not in members:
        raise unknown("backbone", options.backbone, [*members, *(f"{n}:NAME" for n in LIBRARIES)])
    content = load_member("backbone", options.backbone, folders)
    if not content.get("_target_"):
        raise GradbenchError(
            f"backbone {options.backbone} names no class: give it a file of its own with "
            "_target_, and its folder with --config-dir"
        )
    if options.width and content.get("width") is None:
        raise GradbenchError(f"backbone {options.backbone} has no width: leave out --width")
    if options.width:
        content["width"] = options.width
    options.width = content.get("width")
    return content


@contextmanager
def numerics(options: argparse.Namespace):
    """Compute in the precision that is asked for."""
    device = find_device(options.device)
    low = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(options.precision)
    autocast = torch.autocast(device.type, low, enabled=low is not None)
    with arithmetic(options.precision, device), autocast:
        yield


# timing


class Unavailable(Exception):
    """Something that cannot take part in a benchmark; the text says why."""


@dataclass
class Timings:
    """What `time_in_turn` measured, by name.

    Attributes:
        seconds: of one call, one per round.
        cpu_seconds: of all processor cores together: what a busy machine does not change.
        calls: within one measurement.
        results: of the first call.
        failed: why a call failed; such names have no seconds.
    """

    seconds: dict[str, list[float]] = field(default_factory=dict)
    cpu_seconds: dict[str, list[float]] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def columns(self, name: str) -> dict[str, Any]:
        """Return median, smallest and largest time of a call as columns of a table."""
        seconds = self.seconds[name]
        return {
            "seconds": median(seconds),
            "seconds_low": min(seconds),
            "seconds_high": max(seconds),
            "cpu_seconds": median(self.cpu_seconds[name]),
        }


def time_in_turn(
    runs: Mapping[str, Callable[[], Any]],
    rounds: int,
    device: torch.device,
    warm_up: bool = True,
    shortest: float = SHORTEST,
) -> Timings:
    """Time functions in turn, again and again, so that a machine's drift hits all alike.

    The order rotates from round to round. Collection of garbage waits until a measurement is over.
    A function that fails is left out from there on.

    Args:
        runs: functions by name.
        rounds: measurements of each.
        device: is waited for before and after each measurement.
        warm_up: call each once before the first round, and several times in a measurement if short.
        shortest: seconds of a measurement.
    """
    found = Timings()
    gc.collect()
    gc.freeze()  # what is there already is left out of the collections between measurements

    def attempt(name: str, warming: bool) -> None:
        if name in found.failed:
            return
        try:
            calls = found.calls.get(name, 1)
            seconds, cpu_seconds, result = _time(runs[name], calls, device)
            found.results.setdefault(name, result)
            if warming and seconds < 10 * shortest:  # see how long a warm run takes
                seconds, _, _ = _time(runs[name], 1, device)
        except Exception as fault:  # what a library cannot do is a line of the table
            found.failed[name] = failure(fault)
            found.seconds.pop(name, None)
            return
        if warming:
            found.calls[name] = min(MAX_CALLS, max(1, ceil(shortest / max(seconds, 1e-9))))
            return
        found.seconds.setdefault(name, []).append(seconds / calls)
        found.cpu_seconds.setdefault(name, []).append(cpu_seconds / calls)

    names = list(runs)
    try:
        with Progress("timing", len(names) * (rounds + warm_up), "measurements") as progress:
            for number in range(-warm_up, rounds):
                shift = max(number, 0) % max(len(names), 1)
                for name in names[shift:] + names[:shift]:
                    attempt(name, number < 0)
                    progress.advance(1, name)
    finally:
        gc.unfreeze()
    return found


def _time(run: Callable[[], Any], calls: int, device: torch.device) -> tuple[float, float, Any]:
    gc.collect()
    gc.disable()
    try:
        synchronize(device)
        begun, busy = time.perf_counter(), time.process_time()
        for _ in range(calls):
            result = run()
        synchronize(device)
        return time.perf_counter() - begun, time.process_time() - busy, result
    finally:
        gc.enable()


def synchronize(device: torch.device) -> None:
    """Wait until the device has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def ratio_columns(own: Sequence[float], reference: Sequence[float], name: str) -> dict[str, float]:
    """Return the ratio to the reference, taken within each round, as columns of a table.

    >>> ratio_columns([2.0, 3.0, 9.0], [1.0, 2.0, 3.0], "ratio")
    {'ratio': 2.0, 'ratio_low': 1.5, 'ratio_high': 3.0}
    """
    ratios = [a / b for a, b in zip(own, reference, strict=True)]
    return {name: median(ratios), f"{name}_low": min(ratios), f"{name}_high": max(ratios)}


def failure(fault: BaseException) -> str:
    """Return in one short line why something failed."""
    if isinstance(fault, Unavailable | GradbenchError):
        return str(fault)
    text = " ".join(str(fault).split())
    if isinstance(fault, torch.OutOfMemoryError) or "can't allocate memory" in text:
        return "out of memory"
    return f"{type(fault).__name__}: {text[:120]}{'…' if len(text) > 120 else ''}"


# tables


def write_table(
    subject: str,
    rows: Sequence[Mapping[str, Any]],
    options: argparse.Namespace,
    shown: Sequence[str],
    *more: str,
    shared: Mapping[str, Any] | None = None,
) -> Path:
    """Print the rows of a benchmark, and write them with condition, versions and hardware as CSV.

    Args:
        subject: of the benchmark; with the condition it makes the file's name.
        rows: numbers by column.
        options: the condition.
        shown: columns to print.
        more: what else belongs to the file's name.
        shared: what else all rows have.

    Returns:
        The path of the file.
    """
    hardware = provenance.hardware(torch.device(options.device))
    versions, code = provenance.versions(), provenance.code()
    condition = {name: getattr(options, name) for name in CONDITION if hasattr(options, name)}
    libraries = ("backpack-for-pytorch", "pytorch-ood", "foolbox", "timm")
    about = {
        **condition,
        **(shared or {}),
        **{name: hardware.get(name) for name in ("processor", "cores", "accelerator")},
        "load_average": round(os.getloadavg()[0], 2),
        **{name: versions[name] for name in ("gradbench", "python", "torch", "torchvision")},
        **{name: _version(name) for name in libraries},
        **{name: code[name] for name in ("commit", "changed")},
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "command": shlex.join(("python", f"scripts/benchmarks/{subject}.py", *sys.argv[1:])),
    }
    table = pd.DataFrame([dict(row) | about for row in rows])
    columns = [*dict.fromkeys(name for row in rows for name in row), *about]
    table = pd.DataFrame({name: table[name].map(_text) for name in dict.fromkeys(columns)})
    if shown:
        print(table[[name for name in shown if name in table]].to_string(index=False))
    machine = hardware.get("accelerator") or f"{options.threads}thread{'s'[options.threads == 1 :]}"
    size = f"{options.image_size}px" if getattr(options, "image_size", None) else None
    parts = [subject, condition.get("backbone")]
    parts += [f"{letter}{condition[name]}" for letter, name in (("w", "width"), ("b", "batch"))
              if condition.get(name)]  # fmt: skip
    parts += [size, options.device.split(":")[0], machine.lower(), condition.get("precision")]
    stem = "-".join(re.sub(r"[^\w.]+", "_", str(part)) for part in (*parts, *more) if part)
    path = options.out / f"{stem}.csv"
    table.to_csv(path, index=False, lineterminator="\n")
    print(f"written to {path}")
    return path


def _text(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "absent"
