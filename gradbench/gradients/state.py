"""A model that comes back as it was: what requires a gradient, hooks, buffers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager

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


@contextmanager
def without_callers_hooks(
    model: nn.Module, kinds: Sequence[str] = (*FORWARD_HOOKS, *BACKWARD_HOOKS)
) -> Iterator[list[str]]:
    """Suspend hooks that were placed on the model; those of PyTorch itself are part of it.

    Gives the names of the modules that had some.
    """
    names = []
    with ExitStack() as stack:
        for where, module in model.named_modules():
            for kind in kinds:
                hooks = getattr(module, kind)
                if hooks:
                    kept = OrderedDict((k, h) for k, h in hooks.items() if _of_torch(h))
                    if len(kept) < len(hooks):
                        names.append(f"'{where}'")
                    setattr(module, kind, kept)
                    stack.callback(setattr, module, kind, hooks)
        yield names


def _of_torch(hook: Callable) -> bool:
    return (getattr(hook, "__module__", None) or type(hook).__module__).startswith("torch.")
