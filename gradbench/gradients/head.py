"""The last linear layer of a network: the one whose output is that of the network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from gradbench.errors import GradbenchError, unknown
from gradbench.gradients.cached_tensors import as_written
from gradbench.gradients.refusals import check_outputs, refuse_randomness


def linear_layers(model: nn.Module, layer: str | None) -> dict[str, nn.Linear]:
    """Return name -> layer of the Linear layers, or of the named one alone."""
    modules = dict(model.named_modules())
    if layer is not None and not isinstance(layer, str):
        raise GradbenchError(f"layer is a {type(layer).__name__}: give the name of a Linear layer")
    found = {name: module for name, module in modules.items() if isinstance(module, nn.Linear)}
    if layer is not None and layer in modules and layer not in found:
        raise GradbenchError(
            f"layer '{layer}' is a {type(modules[layer]).__name__}, but the closed forms hold for "
            "Linear layers alone (a convolution adds up over positions): use squared_norms"
        )
    if not found:
        raise GradbenchError(
            "the network has no Linear layer, and the closed forms hold for no other (a final "
            "convolution adds up over positions): use squared_norms"
        )
    if layer is not None and layer not in found:
        raise unknown("layer", layer, found)
    return found if layer is None else {layer: found[layer]}


class _Uses(TorchFunctionMode):
    """Counts how often each tensor of a set enters a function that makes tensors.

    The closed form is the whole gradient only of a weight that enters its layer and nothing else.
    """

    def __init__(self, tensors: list[Tensor]):
        super().__init__()
        self.count = {id(tensor): 0 for tensor in tensors}

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run the function and count."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if any(isinstance(value, Tensor) for value in tree_leaves(result)):  # not a shape, say
            for value in tree_leaves((args, kwargs)):
                if id(value) in self.count:
                    self.count[id(value)] += 1
        return result


def forward_to_head(
    model: nn.Module, images: Tensor, heads: Mapping[str, nn.Linear]
) -> tuple[str, Tensor, Tensor]:
    """Run the network on a chunk; return the last layer's name, its input and the logits."""
    calls: list[tuple[str, Tensor, Tensor]] = []
    shapes: dict[str, tuple[int, ...]] = {}

    def note(name: str) -> Callable:
        def hook(_module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Tensor) -> None:
            x = args[0] if args else kwargs["input"]
            shapes[name] = tuple(output.shape)
            if all(t.ndim == 2 and len(t) == len(images) for t in (x, output)):
                calls.append((name, x, output))  # anything else is not worth its memory

        return hook

    uses = _Uses([p for head in heads.values() for p in (head.weight, head.bias) if p is not None])
    handles = [
        head.register_forward_hook(note(name), with_kwargs=True) for name, head in heads.items()
    ]
    try:
        with refuse_randomness(images.device), as_written(model), uses:
            logits = model(images)
    finally:
        for handle in handles:
            handle.remove()
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(images):
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise GradbenchError(
            f"the network must return logits, ({len(images)} images, classes), but gave {got}"
        )
    check_outputs(logits, images, model)
    name, x = _match(calls, logits, heads, shapes)
    _check(name, heads[name], x, logits, uses)
    precise = torch.promote_types(torch.promote_types(x.dtype, logits.dtype), torch.float32)
    # A copy: x may be a view, of the class token say, and would keep all tokens.
    return name, x.to(precise, copy=True), logits.to(precise)


def _match(
    calls: list[tuple[str, Tensor, Tensor]],
    logits: Tensor,
    heads: Mapping[str, nn.Linear],
    shapes: Mapping[str, tuple[int, ...]],
) -> tuple[str, Tensor]:
    """Return name and input of the layer whose output is the logits, by identity, then by value.

    By value, because an identity or an inactive dropout may follow the layer.
    """
    fitting = [call for call in calls if call[2].shape == logits.shape]
    found = [call for call in fitting if call[2].data_ptr() == logits.data_ptr()] or [
        call for call in fitting if torch.equal(call[2].to(logits.dtype), logits)
    ]
    if len({name for name, _, _ in found}) > 1:
        raise GradbenchError(
            "the outputs of several layers are equal to the network's: name the last one by "
            f"layer, one of {', '.join(name for name, _, _ in found)}"
        )
    if not found:
        layers = ", ".join(f"'{name}' {shapes.get(name, 'not called')}" for name in heads)
        raise GradbenchError(
            f"the network's output, shape {tuple(logits.shape)}, is not the output of a Linear "
            f"layer (looked at {layers}), so there is no closed form: use squared_norms"
        )
    return found[-1][:2]


def _check(name: str, head: nn.Linear, x: Tensor, logits: Tensor, uses: _Uses) -> None:
    """Raise unless logits = W x + b with parameters W and b that enter nothing else."""
    parameters = [p for p in (head.weight, head.bias) if p is not None]
    if not all(isinstance(p, nn.Parameter) for p in parameters):
        raise GradbenchError(
            f"the weight of layer '{name}' is computed from other parameters: use squared_norms"
        )
    if any(uses.count[id(p)] != 1 for p in parameters):
        raise GradbenchError(
            f"the weight or bias of layer '{name}' is used more than once in a forward pass, so "
            "its gradient has other parts than the closed form: use squared_norms"
        )
    tolerance = {torch.float64: 1e-9, torch.float32: 1e-3}.get(logits.dtype, 5e-2)
    error = (F.linear(x, head.weight, head.bias).to(logits) - logits).abs().max()
    if error > tolerance * logits.abs().max():
        raise GradbenchError(
            f"the output of layer '{name}' is not its weight times its input plus its bias: a "
            "hook, an operation in place or a forward of its own changes one of them"
        )
