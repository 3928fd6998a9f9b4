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

    Hooks on the parameters themselves are suspended: some routes would not meet them.
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
            p.requires_grad_(required)
            if hooks:
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
            if buffer._version != version:
                with torch.no_grad():
                    buffer.copy_(content)


def tensors_of(model: nn.Module) -> Iterator[Tensor]:
    """Go over parameters and buffers without their names, which take several times as long."""
    for module in model.modules():
        for held in (module._parameters, module._buffers):
            for tensor in held.values():
                if tensor is not None:
                    yield tensor


def attributes(module: nn.Module) -> dict[str, Any]:
    """Return what a module holds beside what every module has; its buffers count."""
    return {name: v for name, v in vars(module).items() if name not in _OF_EVERY_MODULE}


_OF_EVERY_MODULE = frozenset(vars(nn.Module())) - {"_buffers"}


@contextmanager
def same_attributes(model: nn.Module) -> Iterator[None]:
    """Put back what the block changes in the attributes of modules, in dictionaries and lists too.

    For passes that the caller does not know of: a network may keep what it computes.
    """
    before = [
        (module, {k: (v, copy(v) if isinstance(v, dict | list) else v) for k, v in held.items()})
        for module, held in ((m, attributes(m)) for m in model.modules())
        if held
    ]
    try:
        yield
    finally:
        for module, held in before:
            for name in attributes(module).keys() - held.keys():
                del vars(module)[name]
            for name, (value, content) in held.items():
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
def without_callers_hooks(
    model: nn.Module, kinds: Sequence[str] = (*FORWARD_HOOKS, *BACKWARD_HOOKS)
) -> Iterator[list[str]]:
    """Suspend hooks that were placed on the model; those of PyTorch itself are part of it.

    Gives the names of the modules that had some.
    """
    with callers_hooks(model, kinds, None) as names:
        yield names


@contextmanager
def callers_hooks(
    model: nn.Module, kinds: Sequence[str], instead: Callable[[Callable], Callable] | None
) -> Iterator[list[str]]:
    """Put others in the place of hooks that were placed on the model, or none; see above."""
    names = []
    with ExitStack() as stack:
        for where, module in model.named_modules():
            for kind in kinds:
                hooks = getattr(module, kind)
                if hooks:
                    kept = OrderedDict((k, h) for k, h in hooks.items() if _of_torch(h))
                    if len(kept) < len(hooks):
                        names.append(f"'{where}'")
                    if instead is not None:
                        others = ((k, h if k in kept else instead(h)) for k, h in hooks.items())
                        kept = OrderedDict(others)
                    setattr(module, kind, kept)
                    stack.callback(setattr, module, kind, hooks)
        yield names


def _of_torch(hook: Callable) -> bool:
    return (getattr(hook, "__module__", None) or type(hook).__module__).startswith("torch.")
