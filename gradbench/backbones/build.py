"""Builds the configured network around the in-distribution data."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from gradbench.errors import GradbenchError
from gradbench.support.instantiate import check_arguments, found, parameters

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
    names = calls(config)
    given = {names["classes"]: classes, names["channels"]: channels}
    arguments = {k: v for k, v in config.items() if k not in OWN_FIELDS}
    arguments |= {k: v for k, v in given.items() if k}
    return {"_target_": config["_target_"], "arguments": arguments}


def calls(config: Mapping[str, Any]) -> dict[str, str | None]:
    """Return what a network's class calls the number of `classes` and of `channels`."""
    return {"classes": "classes", "channels": "channels"} | dict(config.get("arguments") or {})


def check_network(config: Mapping[str, Any]) -> None:
    """Refuse settings that the network's class does not take, before it is built.

    Raises:
        GradbenchError: if the class is not found, or naming the setting.
    """
    if not config.get("_target_"):
        raise GradbenchError(
            f"backbone={config.get('name')} has no class: name it with "
            "backbone._target_=my.module.Net"
        )
    make = found("backbone", config["_target_"], nn.Module)
    takes, open_ended = parameters(make)
    names = calls(config)
    for what, name in names.items():
        if name and name not in takes and not open_ended:
            raise GradbenchError(
                f"backbone: {config['_target_']} takes no {name}: say what it calls the number of "
                f"{what} with +backbone.arguments.{what}=NAME, null for none; it takes "
                f"{', '.join(takes)}"
            )
    arguments = network_config(config, classes=10, channels=3)["arguments"]
    check_arguments(make, arguments, "backbone", OWN_FIELDS)


def build_network(config: Mapping[str, Any]) -> nn.Module:
    """Build the network that `network_config` describes, with fresh weights.

    Raises:
        GradbenchError: if the class is not found, refuses its arguments, or is not a module.
    """
    target = config["_target_"]
    make = found("backbone", target, nn.Module)
    try:
        network = make(**config["arguments"])
    except (TypeError, ValueError, RuntimeError) as fault:
        raise GradbenchError(
            f"backbone {target} refuses its arguments ({fault}); it takes {inspect.signature(make)}"
        ) from fault
    if not isinstance(network, nn.Module):
        raise GradbenchError(f"backbone._target_={target} gives no torch.nn.Module")
    return network
