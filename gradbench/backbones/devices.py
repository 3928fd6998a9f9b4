"""The devices that a run works on, and how they compute."""

from __future__ import annotations

import torch

from gradbench.errors import GradbenchError


def choose_devices(device: torch.device, requested: str, count: int) -> tuple[torch.device, ...]:
    """Return the devices of `devices=N`: N accelerators, or the CPU N times for N processes.

    Args:
        device: the one that a single process would run on.
        requested: the user's `device`: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        count: N.

    Raises:
        GradbenchError: if there are fewer devices, or the user requested one by its number.

    >>> choose_devices(torch.device("cpu"), "auto", 2)
    (device(type='cpu'), device(type='cpu'))
    """
    if count == 1 or device.type == "cpu":
        return (device,) * count
    if requested not in ("auto", device.type):
        raise GradbenchError(
            f"device={requested} is one device, and devices={count} takes several: leave "
            "device=auto"
        )
    available = torch.cuda.device_count() if device.type == "cuda" else 1
    if count > available:
        raise GradbenchError(
            f"devices={count}: this machine has {available} of type {device.type}, so choose "
            f"devices={available} or fewer"
        )
    return tuple(torch.device(device.type, i) for i in range(count))


def set_exact_arithmetic() -> None:
    """Make accelerators compute in full float32 and by the same algorithms every time."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
