"""Builds the configured network around the in-distribution data."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from gradbench.errors import GradbenchError
from gradbench.support.code_keys import is_external
from gradbench.support.external import describe_exception, preserve_process_state
from gradbench.support.instantiate import check_arguments, import_target, parameters_of

NOT_ARGUMENTS = ("_target_", "name", "description", "checkpoint", "trained_on")
NOT_ARGUMENTS += ("arguments", "feature_layers", "published")
"""Fields of a file in `configs/backbone/` that are not arguments of the network."""


def network_config(config: Mapping[str, Any], classes: int, channels: int) -> dict[str, Any]:
    """Return the network's class path and all its arguments, JSON-able.

    A file in `configs/backbone/` may say under `arguments` what its class calls the number of
    classes and of channels (`{classes: num_classes, channels: null}`); null passes none.
    """
    names = _argument_names(config)
    counts = {names["classes"]: classes, names["channels"]: channels}
    arguments = {k: v for k, v in config.items() if k not in NOT_ARGUMENTS}
    arguments |= {k: v for k, v in counts.items() if k}
    return {"_target_": config["_target_"], "arguments": arguments}


def _argument_names(config: Mapping[str, Any]) -> dict[str, str | None]:
    """Return what a network's class calls the number of `classes` and of `channels`."""
    return {"classes": "classes", "channels": "channels"} | dict(config.get("arguments") or {})


def check_network(config: Mapping[str, Any]) -> None:
    """Refuse settings that the network's class does not take, before it is built.

    Raises:
        GradbenchError: if the class is not found, or naming the setting.
    """
    target = config.get("_target_")
    if not target:
        raise GradbenchError(
            f"backbone={config.get('name')} has no class: name it with "
            "backbone._target_=my.module.Net"
        )
    make = import_target("backbone", target, nn.Module)
    takes, open_ended = parameters_of(make)
    for count, name in _argument_names(config).items():
        if name and name not in takes and not open_ended:
            raise GradbenchError(
                f"backbone: {target} takes no {name}: say what it calls the number of {count} with "
                f"+backbone.arguments.{count}=NAME, null for none; it takes {', '.join(takes)}"
            )
    arguments = network_config(config, classes=10, channels=3)["arguments"]
    check_arguments(make, arguments, "backbone", NOT_ARGUMENTS)


def build_network(config: Mapping[str, Any]) -> nn.Module:
    """Build the network that `network_config` describes, with fresh weights.

    Raises:
        GradbenchError: if the class is not found, refuses its arguments, is not a module, or has
            a state that could not be kept.
    """
    target = config["_target_"]
    make = import_target("backbone", target, nn.Module)
    try:
        with preserve_process_state():
            network = make(**config["arguments"])
    except GradbenchError:
        raise
    except (TypeError, ValueError, RuntimeError) as fault:
        raise GradbenchError(
            f"backbone {target} refuses its arguments ({fault}); it takes {inspect.signature(make)}"
        ) from fault
    except Exception as fault:
        if not is_external(make):
            raise
        raise GradbenchError(f"backbone {target} {describe_exception(fault)}") from fault
    if not isinstance(network, nn.Module):
        raise GradbenchError(f"backbone._target_={target} gives no torch.nn.Module")
    if problem := _problem_of_state(network):
        raise GradbenchError(f"backbone._target_={target}: {problem}")
    return network


def _problem_of_state(network: nn.Module) -> str:
    """Return why a network's state could not be kept, empty if it could."""
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        if is_lazy(tensor):
            return f"{name} has no size before the first pass: name the sizes of its layer"
    for name, tensor in network.state_dict().items():
        if not isinstance(tensor, Tensor):
            kind = f"a {type(tensor).__name__}, no tensor: register it as a buffer"
        elif tensor.is_meta:
            kind = "a tensor without numbers: build it on a device"
        elif tensor.layout != torch.strided or tensor.is_quantized or tensor.is_nested:
            kind = "a sparse, quantised or nested tensor, which cannot be kept: make it dense"
        elif tensor.dtype == torch.complex128:  # of which safetensors know nothing
            kind = "of complex128, which cannot be kept: take complex64"
        else:
            continue
        return f"{name} of its state is {kind}"
    return ""
