"""The last linear layer of a network: the one whose output is that of the network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple

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


class _HeadCall(NamedTuple):
    name: str
    x: Tensor
    output: Tensor


def forward_to_head(
    model: nn.Module, images: Tensor, heads: Mapping[str, nn.Linear]
) -> tuple[str, Tensor, Tensor]:
    """Run the network on a chunk; return the last layer's name, its input and the logits."""
    calls: list[_HeadCall] = []
    shapes: dict[str, tuple[int, ...]] = {}

    def keep(name: str) -> Callable:
        def hook(_module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Tensor) -> None:
            x = args[0] if args else kwargs["input"]
            shapes[name] = tuple(output.shape)
            if all(t.ndim == 2 and len(t) == len(images) for t in (x, output)):
                calls.append(_HeadCall(name, x, output))  # anything else is not worth its memory

        return hook

    uses = _Uses([p for head in heads.values() for p in (head.weight, head.bias) if p is not None])
    with ExitStack() as stack:
        for name, head in heads.items():
            stack.enter_context(head.register_forward_hook(keep(name), with_kwargs=True))
        for context in (refuse_randomness(images.device), as_written(model), uses):
            stack.enter_context(context)
        logits = model(images)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(images):
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise GradbenchError(
            f"the network must return logits, ({len(images)} images, classes), but gave {got}"
        )
    check_outputs(logits, images, model)
    # By identity, then by value: an identity or an inactive dropout may follow the layer.
    fitting = [call for call in calls if call.output.shape == logits.shape]
    last = [call for call in fitting if call.output.data_ptr() == logits.data_ptr()] or [
        call for call in fitting if torch.equal(call.output.to(logits.dtype), logits)
    ]
    if len({call.name for call in last}) > 1:
        raise GradbenchError(
            "the outputs of several layers are equal to the network's: name the last one by "
            f"layer, one of {', '.join(call.name for call in last)}"
        )
    if not last:
        layers = ", ".join(f"'{name}' {shapes.get(name, 'not called')}" for name in heads)
        raise GradbenchError(
            f"the network's output, shape {tuple(logits.shape)}, is not the output of a Linear "
            f"layer (looked at {layers}), so there is no closed form: use squared_norms"
        )
    name, x, _ = last[-1]
    _check_closed_form(name, heads[name], x, logits, uses)
    precise = torch.promote_types(torch.promote_types(x.dtype, logits.dtype), torch.float32)
    # A copy: x may be a view, of the class token say, and would keep all tokens.
    return name, x.to(precise, copy=True), logits.to(precise)


def _check_closed_form(name: str, head: nn.Linear, x: Tensor, logits: Tensor, uses: _Uses) -> None:
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
