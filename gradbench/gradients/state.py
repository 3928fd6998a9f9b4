"""A model that comes back as it was: what requires a gradient, hooks, buffers, other attributes."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn

FORWARD_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
BACKWARD_HOOKS = ("_backward_hooks", "_backward_pre_hooks")


@contextmanager
def only_these_require_grad(model: nn.Module, parameters: Collection[Tensor]) -> Iterator[None]:
    """Let exactly these parameters of the model require a gradient; afterwards all is as before.

    Ordinary weight gradients of the others are not computed then. Hooks on the parameters
    themselves are suspended: some routes would not meet them.
    """
    before = [(p, p.requires_grad, p._backward_hooks) for p in model.parameters()]
    wanted = frozenset(parameters)
    try:
        for p, _, hooks in before:
            if hooks:
                p._backward_hooks = None
            p.requires_grad_(p in wanted and p.is_floating_point())
        yield
    finally:
        for p, required, hooks in before:
            if hooks:  # which a tensor takes only while it requires a gradient
                p.requires_grad_(True)
                p._backward_hooks = hooks
            p.requires_grad_(required)


@contextmanager
def same_buffers(model: nn.Module) -> Iterator[None]:
    """Put back what the block changes in the model's buffers: counters, running means."""
    before = [
        (module, name, buffer, buffer._version, buffer.clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None and not buffer.is_inference()
    ]
    try:
        yield
    finally:
        for module, name, buffer, version, content in before:
            module._buffers[name] = buffer
            if buffer._version != version:  # to write all of them back would take time
                with torch.no_grad():
                    buffer.copy_(content)


def tensors_of(model: nn.Module) -> Iterator[Tensor]:
    """Go over parameters and buffers without their names, which take several times as long."""
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            yield from (tensor for tensor in tensors.values() if tensor is not None)


def attributes(module: nn.Module) -> dict[str, Any]:
    """Return the attributes of a module beside those that every module has; its buffers count."""
    return {name: v for name, v in vars(module).items() if name not in _OF_EVERY_MODULE}


_OF_EVERY_MODULE = frozenset(vars(nn.Module())) - {"_buffers"}


@contextmanager
def same_attributes(model: nn.Module) -> Iterator[None]:
    """Put back what the block changes in the attributes of modules, in dictionaries and lists too.

    For passes that the caller does not know of: a network may store what it computes.
    """
    before = [
        (module, {k: (v, copy(v) if isinstance(v, dict | list) else v) for k, v in values.items()})
        for module, values in ((m, attributes(m)) for m in model.modules())
        if values
    ]
    try:
        yield
    finally:
        for module, values in before:
            for name in attributes(module).keys() - values.keys():
                del vars(module)[name]
            for name, (value, content) in values.items():
                vars(module)[name] = value
                if isinstance(value, dict) and _differ(value.values(), content.values()):
                    value.clear()
                    value.update(content)
                elif isinstance(value, list) and _differ(value, content):
                    value[:] = content


def _differ(a: Collection, b: Collection) -> bool:
    return len(a) != len(b) or any(x is not y for x, y in zip(a, b))


def uncompiled() -> AbstractContextManager:
    """Run compiled parts of a network as they are written: inside them layers cannot be seen."""
    if "torch._dynamo" not in sys.modules:  # nothing was compiled, and the import takes seconds
        return nullcontext()
    return torch.compiler.set_stance("force_eager")


@contextmanager
def suspended_hooks(
    model: nn.Module, kinds: Sequence[str] = (*FORWARD_HOOKS, *BACKWARD_HOOKS)
) -> Iterator[list[str]]:
    """Suspend the caller's hooks on a model; give the names of the modules that had some.

    Hooks of PyTorch itself (weight normalisation, say) are part of the network and stay.
    """
    names = []
    with ExitStack() as stack:
        for where, module in model.named_modules():
            for kind in kinds:
                hooks = getattr(module, kind)
                of_torch = OrderedDict((k, hook) for k, hook in hooks.items() if _of_torch(hook))
                if len(of_torch) < len(hooks):
                    names.append(f"'{where}'")
                    setattr(module, kind, of_torch)
                    stack.callback(setattr, module, kind, hooks)
        yield names


def _of_torch(hook: Callable) -> bool:
    return (getattr(hook, "__module__", None) or type(hook).__module__).startswith("torch.")
