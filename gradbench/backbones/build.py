"""Builds the configured network around the in-distribution data."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from gradbench.errors import GradbenchError
from gradbench.support.calling import said, settings_kept
from gradbench.support.instantiate import found
from gradbench.support.sources import outside

OWN_FIELDS = (
    "_target_",
    "name",
    "description",
    "checkpoint",
    "narrower",
    "arguments",
    "feature_layers",
)
"""Fields of a file in `configs/backbone/` that are not arguments of the network."""


def network_config(config: Mapping[str, Any], classes: int, channels: int) -> dict[str, Any]:
    """Return the network's class path and all its arguments, JSON-able.

    A file in `configs/backbone/` may say under `arguments` what its class calls the number of
    classes and of channels (`{classes: num_classes, channels: null}`); null passes none.

    Args:
        config: content of the file.
        classes: number of classes of the data.
        channels: channels of the images.
    """
    names = {"classes": "classes", "channels": "channels"} | dict(config.get("arguments") or {})
    given = {names["classes"]: classes, names["channels"]: channels}
    arguments = {k: v for k, v in config.items() if k not in OWN_FIELDS}
    arguments |= {k: v for k, v in given.items() if k}
    return {"_target_": config["_target_"], "arguments": arguments}


def build_network(config: Mapping[str, Any]) -> nn.Module:
    """Build the network that `network_config` describes, with fresh weights.

    Raises:
        GradbenchError: if the class is not found, refuses its arguments, or is not a module.
    """
    target = config["_target_"]
    make = found(target, f"backbone._target_={target}")
    try:
        with settings_kept():
            network = make(**config["arguments"])
    except (TypeError, ValueError, RuntimeError) as fault:
        raise GradbenchError(
            f"backbone {target} refuses its arguments ({fault}); it takes {inspect.signature(make)}"
        ) from fault
    except GradbenchError:
        raise
    except Exception as fault:
        if not outside(make):
            raise
        raise GradbenchError(f"backbone {target} {said(fault)}") from fault
    if not isinstance(network, nn.Module):
        raise GradbenchError(f"backbone._target_={target} gives no torch.nn.Module")
    return network
