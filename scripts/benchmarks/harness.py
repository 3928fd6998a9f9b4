"""The parts that benchmarks share: options, network and images, timing, and their table."""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
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
from gradbench.report import provenance
from gradbench.support.instantiate import instantiate
from gradbench.support.progress import Progress

PRECISIONS = ("float32", "tf32", "bfloat16", "float16", "float64")
LIBRARIES = ("torchvision", "timm")
"""Libraries whose networks are taken too, as LIBRARY:NAME."""
SETTLING_IMAGES = 8
"""Images from which batch normalisation takes its statistics where weights are random."""
SHORTEST = 0.1
"""Seconds: a shorter run is repeated within one measurement until it lasts this long."""
MAX_CALLS = 1000
CONDITION = ("backbone", "width", "batch", "image_size", "device", "threads", "precision", "rounds")


def positive(text: str) -> int:
    """Return a whole number of at least 1."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no whole number of at least 1")
    return int(text)


# options of all benchmarks, of which each takes some: name -> type, default, help
OPTIONS: dict[str, tuple[Callable, Any, str]] = {
    "backbone": (str, "resnet18", "of `gradbench list backbones`, torchvision:NAME or timm:NAME"),
    "width": (positive, None, "channels of its first stage"),
    "checkpoint": (Path, None, "weights of the network (random ones)"),
    "dataset": (str, None, "its test images (tiles of two photographs)"),
    "data": (Path, Path("data"), "folder of data sets"),
    "images": (positive, 100, "how many images"),
    "batch": (positive, 64, "images in a batch"),
    "image_size": (positive, None, "height and width in pixels (32)"),
    "precision": (str, "float32", "TF32 is off but in tf32; bfloat16 and float16 by autocast"),
    "device": (str, "cpu", "cpu, cuda, cuda:1"),
    "threads": (positive, None, "threads of the processor (all)"),
    "rounds": (positive, 3, "measurements of each"),
    "out": (Path, Path("results/bench"), "folder of the CSV file"),
}


def options_parser(description: str, names: Sequence[str], **defaults: Any):
    """Return a parser of some of the `OPTIONS`, with other defaults where they are given."""
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for name in (*names, "device", "threads", "out"):
        kind, default, text = OPTIONS[name]
        default = defaults.get(name, default)
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=kind,
            default=default,
            choices=PRECISIONS if name == "precision" else None,
            help=text if default is None else f"{text} ({default})",
        )
    return parser


def start(options: argparse.Namespace) -> None:
    """Set torch's threads, look for the device, make the folder of the table."""
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
    """Return the names of a comma list, which must be valid; all valid ones without it."""
    names = [name.strip() for name in text.split(",")] if text else list(valid)
    for name in names:
        if name not in valid:
            raise unknown(kind, name, valid)
    return names


def main_of(main: Callable[[], None]) -> None:
    """Run a benchmark; what is wrong with its options is one sentence."""
    try:
        main()
    except (GradbenchError, Unavailable) as fault:
        print(f"{Path(sys.argv[0]).name}: {fault}", file=sys.stderr)
        sys.exit(2)


# network and images


def load_images(options: argparse.Namespace, count: int) -> ImageSet:
    """Return test images of a data set, spread evenly over it, or tiles; nothing is downloaded."""
    size = options.image_size
    if not getattr(options, "dataset", None):
        return tiles(count, size or 32)
    dataset = instantiate("dataset", options.dataset, load_member("dataset", options.dataset))
    images = dataset.load("test", DataSettings(options.data, download=False))
    count = min(count, len(images))
    images = images.select(np.arange(count) * len(images) // count)
    return resize_to(images, (images.shape[0], size, size)) if size else images


def tiles(count: int, side: int) -> ImageSet:
    """Return tiles of two photographs, moved on from image to image, with arbitrary labels."""
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
    sources, classes = source_ids("tiles", "all", count), tuple(map(str, range(10)))
    return ImageSet("tiles", "all", pixels, np.arange(count) % 10, sources, classes=classes)


def make_backbone(options: argparse.Namespace, images: ImageSet) -> tuple[Backbone, Tensor]:
    """Return the network in evaluation mode and its pixels in [0, 1], both on the device.

    Without a checkpoint weights are random, always the same, and batch normalisation takes its
    statistics from a few images, so that outputs and gradients are of the size that trained
    networks have. Mean and deviation of the pixels are the checkpoint's, or those of the images.
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
    """Return the network with random weights, always the same; libraries' have 1,000 classes."""
    torch.manual_seed(0)
    library, _, name = options.backbone.partition(":")
    if library in LIBRARIES and name:
        if options.width:
            raise GradbenchError(f"{options.backbone} has no width: leave out --width")
        return _of_library(library, name)
    members = group_files("backbone")
    content = load_member("backbone", options.backbone) if options.backbone in members else {}
    if not content.get("_target_"):  # of `custom`, which names no class, there is no network here
        raise unknown("backbone", options.backbone, [*members, *(f"{n}:NAME" for n in LIBRARIES)])
    if options.width and content.get("width") is None:
        raise GradbenchError(f"backbone {options.backbone} has no width: leave out --width")
    # the table tells the width, also where it is the usual one
    options.width = content["width"] = options.width or content.get("width")
    if content["width"] is None:
        del content["width"]
    return build_network(network_config(content, classes, channels))


def _of_library(library: str, name: str) -> nn.Module:
    try:
        if library == "timm":
            import timm

            known, create = timm.list_models(), timm.create_model
        else:
            from torchvision import models

            known, create = models.list_models(module=models), models.get_model
    except ImportError as fault:
        raise GradbenchError(f"{library}:{name}: {library} is not installed") from fault
    if name not in known:
        raise unknown(f"network of {library}", name, known)
    return create(name)


# timing


class Unavailable(Exception):
    """Something that cannot take part in a benchmark; the text says why."""


@dataclass
class Timings:
    """Measurements of `time_in_turn`, by name; names whose call failed have no seconds."""

    seconds: dict[str, list[float]] = field(default_factory=dict)  # of one call, one per round
    cpu_seconds: dict[str, list[float]] = field(default_factory=dict)  # of all cores together
    calls: dict[str, int] = field(default_factory=dict)  # within one measurement
    results: dict[str, Any] = field(default_factory=dict)  # of the first call
    failed: dict[str, str] = field(default_factory=dict)  # why

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
    A function that fails is left out from there on. With `warm_up` each is called once before the
    first round, and several times in a measurement where one call takes less than `shortest`.
    """
    timed = Timings()
    gc.collect()
    gc.freeze()  # what is there already is left out of the collections between measurements

    def attempt(name: str, warming: bool) -> None:
        if name in timed.failed:
            return
        try:
            calls = timed.calls.get(name, 1)
            seconds, cpu_seconds, result = _time(runs[name], calls, device)
            timed.results.setdefault(name, result)
            if warming and seconds < 10 * shortest:  # see how long a warm run takes
                seconds, _, _ = _time(runs[name], 1, device)
        except Exception as fault:  # what a library cannot do is a line of the table
            timed.failed[name] = failure(fault)
            timed.seconds.pop(name, None)
            return
        if warming:
            timed.calls[name] = min(MAX_CALLS, max(1, ceil(shortest / max(seconds, 1e-9))))
            return
        timed.seconds.setdefault(name, []).append(seconds / calls)
        timed.cpu_seconds.setdefault(name, []).append(cpu_seconds / calls)

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
    return timed


def _time(run: Callable[[], Any], calls: int, device: torch.device) -> tuple[float, float, Any]:
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda device: None
    gc.collect()
    gc.disable()
    try:
        wait(device)
        begun, busy = time.perf_counter(), time.process_time()
        for _ in range(calls):
            result = run()
        wait(device)
        return time.perf_counter() - begun, time.process_time() - busy, result
    finally:
        gc.enable()


def in_fresh_process(script: str, *words: str) -> Any:
    """Run a benchmark with more options in a process of its own; return the JSON that it prints."""
    ran = subprocess.run(
        [sys.executable, script, *sys.argv[1:], *words],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode < 0:
        raise Unavailable(f"killed by signal {-ran.returncode}, most likely for want of memory")
    if ran.returncode:
        last = (ran.stderr.splitlines() or ["nothing was said"])[-1]
        raise Unavailable(f"its process ended with code {ran.returncode}: {last[:120]}")
    return json.loads(ran.stdout.splitlines()[-1])


def ratio_columns(times: Sequence[float], reference: Sequence[float], name: str) -> dict:
    """Return the ratio to the reference, taken within each round, as columns of a table.

    >>> ratio_columns([2.0, 3.0, 9.0], [1.0, 2.0, 3.0], "ratio")
    {'ratio': 2.0, 'ratio_low': 1.5, 'ratio_high': 3.0}
    """
    ratios = [a / b for a, b in zip(times, reference, strict=True)]
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


def source_columns(options: argparse.Namespace, images: ImageSet) -> tuple[dict[str, Any], list]:
    """Return which weights and images a benchmark used: as columns, and for its file's name."""
    weights = options.checkpoint.stem if options.checkpoint else "random"
    source = f"{images.name}/{images.split}"
    columns = {"weights": weights, "source": source, "images": len(images)}
    return columns, [f"{weights}_weights", f"{len(images)}_{images.name}_images"]


def write_table(
    subject: str,
    rows: Sequence[Mapping[str, Any]],
    options: argparse.Namespace,
    shown: Sequence[str],
    *more: str,
    shared: Mapping[str, Any] | None = None,
) -> None:
    """Print some columns of the rows; write all with condition, versions and hardware as CSV.

    Subject, condition and `more` make the file's name; `shared` columns are the same in all rows.
    """
    hardware = provenance.hardware(torch.device(options.device))
    versions, code = provenance.versions(), provenance.code()
    condition = {name: getattr(options, name) for name in CONDITION if hasattr(options, name)}
    about = {
        **condition,
        **(shared or {}),
        **{name: hardware.get(name) for name in ("processor", "cores", "accelerator")},
        "load_average": os.getloadavg()[0],
        **{name: versions[name] for name in ("gradbench", "python", "torch", "torchvision")},
        **{n: _version(n) for n in ("backpack-for-pytorch", "pytorch-ood", "foolbox", "timm")},
        **{name: code[name] for name in ("commit", "changed")},
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "command": shlex.join(("python", f"scripts/benchmarks/{subject}.py", *sys.argv[1:])),
    }
    table = pd.DataFrame([dict(row) | about for row in rows])
    table = table[[*dict.fromkeys([*(name for row in rows for name in row), *about])]].map(_text)
    if shown:
        print(table[[name for name in shown if name in table]].to_string(index=False))
    machine = hardware.get("accelerator") or f"{options.threads}thread{'s'[options.threads == 1 :]}"
    parts = [subject, condition.get("backbone")]
    for pattern, name in (("w{}", "width"), ("b{}", "batch"), ("{}px", "image_size")):
        parts += [pattern.format(condition[name])] if condition.get(name) else []
    parts += [options.device.split(":")[0], machine.lower(), condition.get("precision"), *more]
    path = options.out / (
        "-".join(re.sub(r"[^\w.]+", "_", part) for part in parts if part) + ".csv"
    )
    table.to_csv(path, index=False, lineterminator="\n")
    print(f"written to {path}")


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
