"""The devices that a run works on, and how they compute."""

from __future__ import annotations

import torch

from gradbench.errors import GradbenchError


def several(device: torch.device, named: str, count: int) -> tuple[torch.device, ...]:
    """Return the devices of `devices=N`: so many accelerators, or on a CPU as many processes.

    Args:
        device: that one process would run on.
        named: what the user wrote, `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        count: N.

    Raises:
        GradbenchError: if there are fewer devices, or one of them was named.

    >>> several(torch.device("cpu"), "auto", 2)
    (device(type='cpu'), device(type='cpu'))
    """
    if count == 1 or device.type == "cpu":
        return (device,) * count
    if named not in ("auto", device.type):
        raise GradbenchError(
            f"device={named} is one device, and devices={count} takes several: leave device=auto"
        )
    there = torch.cuda.device_count() if device.type == "cuda" else 1
    if count > there:
        raise GradbenchError(
            f"devices={count}: this machine has {there} of type {device.type}, so choose "
            f"devices={there} or fewer"
        )
    return tuple(torch.device(device.type, i) for i in range(count))


def exact_arithmetic() -> None:
    """Have accelerators compute in full float32 and by the same algorithms every time."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
