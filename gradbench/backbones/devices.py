"""The devices that a run works on, and how they compute."""

from __future__ import annotations

import torch

from gradbench.errors import GradbenchError


def find_device(name: str) -> torch.device:
    """Return the device of a name; `auto` takes an accelerator where there is one.

    Raises:
        GradbenchError: if there is no such device here.
    """
    present = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    present += ["mps"] if torch.backends.mps.is_available() else []
    if name == "auto":
        name = present[1] if len(present) > 1 else "cpu"
    if name == "cuda":
        name = "cuda:0"
    if name not in present:
        raise GradbenchError(f"device={name} is not here: choose auto, {', '.join(present)}")
    return torch.device(name)


def find_devices(name: str, count: int) -> tuple[torch.device, ...]:
    """Return the devices of `devices=N`: N accelerators, or the CPU N times for N processes.

    Raises:
        GradbenchError: if there are fewer devices, or the user named one by its number.

    >>> find_devices("cpu", 2)
    (device(type='cpu'), device(type='cpu'))
    """
    device = find_device(name)
    if count == 1 or device.type == "cpu":
        return (device,) * count
    if name not in ("auto", device.type):
        raise GradbenchError(
            f"device={name} is one device, and devices={count} takes several: leave device=auto"
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
