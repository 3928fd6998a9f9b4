"""The provenance of a run: versions, code, hardware."""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from gradbench import __version__

PACKAGES = (
    *("torch", "torchvision", "numpy", "scipy", "scikit-learn", "pandas", "hydra-core"),
    *("omegaconf", "pillow", "safetensors", "matplotlib"),
)


def versions() -> dict[str, str]:
    """Return the versions of gradbench, Python and the libraries that numbers depend on."""
    packages = {"gradbench": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            packages[name] = "absent"
    return packages


def code() -> dict[str, Any]:
    """Return the version and, where the package is run from a checkout, its git commit."""
    folder = Path(__file__).parent
    try:
        commit, status = (
            subprocess.run(
                ["git", *words], cwd=folder, capture_output=True, text=True, check=True, timeout=10
            ).stdout.strip()
            for words in (
                ("rev-parse", "HEAD"),
                ("status", "--porcelain", "--", ":/gradbench", ":/configs"),
            )
        )
    except (OSError, subprocess.SubprocessError):
        return {"version": __version__, "commit": None, "changed": None}
    return {"version": __version__, "commit": commit, "changed": bool(status)}


def hardware(device: torch.device) -> dict[str, Any]:
    """Return processor, cores, threads, device and the largest memory that this process held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    facts: dict[str, Any] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": str(device),
        "peak_memory_mib": round(peak / (2**20 if platform.system() == "Darwin" else 2**10)),
    }
    if device.type == "cuda":
        facts["accelerator"] = torch.cuda.get_device_name(device)
        facts["peak_device_memory_mib"] = round(torch.cuda.max_memory_allocated(device) / 2**20)
    return facts


def _processor() -> str:
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(x for x in lines if x.startswith("model name")).split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
