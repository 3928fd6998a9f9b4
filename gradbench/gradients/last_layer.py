"""Gradients of the last linear layer in closed form, from a forward pass alone.

With h (B, H) the input of the layer, z = W h + b its output, the logits (B, N), and J_b any loss of
z_b, the gradients are dJ_b/dW = delta_b (x) h_b and dJ_b/db = delta_b with delta = dJ/dz. Whatever
is asked of them factorises into a statistic of delta and one of h: no gradient is ever materialised
and no backward pass goes through the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from gradbench.errors import GradbenchError, unknown
from gradbench.gradients.arguments import (
    FAULTS,
    check_images,
    naming_rejected_images,
    network_inside,
)
from gradbench.gradients.cached_tensors import as_written
from gradbench.gradients.expressions import tensors_in
from gradbench.gradients.one_image import forward_one
from gradbench.gradients.refusals import (
    check_outputs,
    refuse_randomness,
    refuse_training_mode,
)
from gradbench.gradients.rules.base import squared_rows

CHUNK = 256
"""Images per forward pass."""
FORMS = ("sequential", "fast")


@dataclass(frozen=True, eq=False)
class LastLayer:
    """Input and output of the last linear layer, and the gradients that follow from them.

    Losses of a single class i, J(z, one_hot(i)), are named

    | name | J | dJ/dz_j |
    | --- | --- | --- |
    | bce | mean over outputs of the binary cross entropy with logits | (sigmoid(z_j) - [i=j]) / N |
    | mse | mean over outputs of (z_j - [i=j])^2 | 2 (z_j - [i=j]) / N |
    | mse_max | the same with m = max z, a constant, in place of the one | 2 (z_j - m [i=j]) / N |
    | ce | -log softmax(z)_i | softmax(z)_j - [i=j] |

    and computed without cancellation: an image that the network is sure of, logits of 40 in
    float32, keeps all its digits. Squares of such gradients fall below the range of float32 from
    logits of about 44 on; `dataclasses.replace` with tensors in float64 is the way out.

    `layer` is its name, `features` its input h (B, H), `logits` its output z (B, N), both float32,
    or float64 where the network is. The gradients of a confounding label: `squared_norms`.
    """

    layer: str
    features: Tensor
    logits: Tensor

    def class_deltas(self, loss: str) -> Tensor:
        """Return dJ(z, one_hot(i))/dz_j for every class i and output j, (B, N, N).

        The full gradients are its products with h. Takes N^2 numbers an image.
        """
        others, own, _ = self._class_gradients(loss)
        deltas = others.unsqueeze(1).repeat(1, others.shape[1], 1)
        deltas.diagonal(dim1=1, dim2=2).copy_(own)
        return deltas

    def class_squared_norms(self, loss: str) -> tuple[Tensor, Tensor]:
        """Return the squared gradient norms of weight and bias for every class, (B, N) each.

        ||delta_i||^2 ||h||^2 and ||delta_i||^2 with delta_i = dJ(z, one_hot(i))/dz, in N numbers
        an image.
        """
        others, own, _ = self._class_gradients(loss)
        bias = _sum_of_others(others.square()) + own.square()
        return bias * squared_rows(self.features).unsqueeze(1), bias

    def introspective(
        self, loss: str = "mse_max", form: str = "sequential", normalise: bool = True
    ) -> Tensor:
        """Return the introspective features r_x, (B, N H), Prabhushankar and AlRegib 2022.

        Row i of the sequential form is row i of dJ(z, one_hot(i))/dW, one backward pass per class
        in the paper; the fast form is all of dJ(z, ones)/dW, one backward pass. They are the same
        for bce, mse and mse_max, which treat every output by itself, and differ for ce. Either is
        vec(delta (x) h), so the whole vector is normalised: row by row, delta would be lost.

        Args:
            loss: bce, mse, mse_max or ce. With mse_max the row of the predicted class is zero.
            form: sequential or fast.
            normalise: divide each image's vector by its L2 norm; a vector of zeros stays.
        """
        if form not in FORMS:
            raise unknown("form", form, FORMS)
        _, own, ones = self._class_gradients(loss)
        delta, h = (own if form == "sequential" else ones), self.features
        if normalise:  # a rank-one vector has the norm ||delta|| ||h||
            delta, h = _unit_rows(delta), _unit_rows(h)
        return (delta.unsqueeze(2) * h.unsqueeze(1)).flatten(1)

    def _class_gradients(self, loss: str) -> tuple[Tensor, Tensor, Tensor]:
        if not isinstance(loss, str) or loss not in CLASS_LOSSES:
            raise unknown("class loss", loss, CLASS_LOSSES)
        return CLASS_LOSSES[loss](self.logits)


def uniform_l1(features: Tensor, logits: Tensor) -> Tensor:
    """Return the L1 norm of the weight gradient of KL(uniform || softmax(z)), (B,).

    ||p - 1/N||_1 ||h||_1, GradNorm (Huang, Geng and Li 2021), https://arxiv.org/abs/2110.00218.
    This is the plain norm: a *larger* one means more *in-distribution*, the opposite of a score.
    The authors' code returns N times this norm, as it sums over the classes. `features` are the
    input h of the last linear layer, (B, H), and `logits` its output, (B, N).
    """
    p = torch.softmax(logits, dim=1)
    return (p - 1 / p.shape[1]).abs().sum(1) * features.abs().sum(1)


def last_layer(
    model: nn.Module,
    images: Tensor,
    *,
    layer: str | None = None,
    chunk: int | None = None,
) -> LastLayer:
    """Return the input and output of the last linear layer, which give its gradients.

    The last layer is the `nn.Linear` whose output, one row per image, is that of the network.
    Runs without autograd and keeps h and the logits alone; the model comes back as it was.

    Args:
        model: network from images to logits (B, N), in evaluation mode.
        images: (B, C, H, W).
        layer: name of the layer in the model (`fc`, `network.fc`); None finds it.
        chunk: images per pass; None means 256.

    Raises:
        GradbenchError: for unknown names, a model in training mode or drawing random numbers,
            outputs that are not finite logits, or a network for which the closed forms do not
            hold: its output is not the output of a Linear layer, or that layer's weight is used
            more than once.
    """
    model, images = network_inside(model), check_images(images, chunk)
    refuse_training_mode(model)
    heads = _linear_layers(model, layer)
    device = next(iter(heads.values())).weight.device
    parts = []
    with torch.inference_mode(False), torch.no_grad():
        for piece in images.split(chunk or CHUNK):
            piece = piece.to(device, copy=True)  # networks may change it in place
            try:
                name, features, logits = _forward_to_head(model, piece.clone(), heads)
            except FAULTS:  # of the network, or of the caller's hooks?
                with naming_rejected_images(model, piece):
                    forward_one(model, piece[:1])
                raise
            parts.append((features, logits))
            heads = {name: heads[name]}
        features, logits = (torch.cat(tensors).to(images.device) for tensors in zip(*parts))
    return LastLayer(name, features, logits)


class _Uses(TorchFunctionMode):
    """Counts how often each tensor of a set enters a function that makes tensors.

    The closed form is the whole gradient only of a weight that enters its layer and nothing else.
    """

    def __init__(self, tensors: Iterable[Tensor]):
        super().__init__()
        self.count = {id(tensor): 0 for tensor in tensors}

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run the function and count."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if any(True for _ in tensors_in(result)):  # not a shape, say
            for value in tensors_in((args, kwargs)):
                if id(value) in self.count:
                    self.count[id(value)] += 1
        return result


def _linear_layers(model: nn.Module, layer: str | None) -> dict[str, nn.Linear]:
    """Return name -> layer of the Linear layers, or of the named one alone."""
    modules = dict(model.named_modules())
    linear = {name: module for name, module in modules.items() if isinstance(module, nn.Linear)}
    if layer is None and linear:
        return linear
    if layer is not None and layer not in list(modules):  # anything may be given
        raise unknown("layer", layer, linear)
    if layer not in linear:
        kind = type(modules[layer]).__name__ if layer else ""
        where = f"layer '{layer}' is a {kind}" if layer else "the network has no Linear layer"
        raise GradbenchError(
            f"{where}, but the closed forms hold for Linear layers alone (a convolution adds up "
            "over positions): use squared_norms"
        )
    return {layer: linear[layer]}


def _forward_to_head(
    model: nn.Module, images: Tensor, heads: Mapping[str, nn.Linear]
) -> tuple[str, Tensor, Tensor]:
    """Run the network on a chunk; return the last layer's name, its input and the logits."""
    calls: list[tuple[str, Tensor, Tensor]] = []
    shapes = dict.fromkeys(heads, "not called")

    def keep(name: str) -> Callable:
        def hook(_module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Tensor) -> None:
            x = args[0] if args else kwargs["input"]
            shapes[name] = str(tuple(output.shape))
            if all(t.ndim == 2 and len(t) == len(images) for t in (x, output)):
                calls.append((name, x, output))  # anything else is not worth its memory

        return hook

    uses = _Uses(p for head in heads.values() for p in (head.weight, head.bias) if p is not None)
    with ExitStack() as stack:
        for name, head in heads.items():
            stack.enter_context(head.register_forward_hook(keep(name), with_kwargs=True))
        for context in (refuse_randomness(images.device), as_written(model), uses):
            stack.enter_context(context)
        logits = model(images)
    check_outputs(logits, images, model)
    # By identity, then by value: an identity or an inactive dropout may follow the layer.
    fitting = [call for call in calls if call[2].shape == logits.shape]
    last = [call for call in fitting if call[2].data_ptr() == logits.data_ptr()] or [
        call for call in fitting if torch.equal(call[2].to(logits.dtype), logits)
    ]
    if not last:
        layers = ", ".join(f"'{name}' {shape}" for name, shape in shapes.items())
        raise GradbenchError(
            f"the network's output, shape {tuple(logits.shape)}, is not the output of a Linear "
            f"layer (looked at {layers}), so there is no closed form: use squared_norms"
        )
    names = dict.fromkeys(name for name, _, _ in last)
    if len(names) > 1:
        raise GradbenchError(
            "the outputs of several layers are equal to the network's: name the last one by "
            f"layer, one of {', '.join(names)}"
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


def _sum_of_others(values: Tensor) -> Tensor:
    """For every entry of a row the sum of the others, (B, N), of values that are not negative.

    The total less the entry cancels for the largest entry alone; its others are summed themselves.
    """
    largest = values.argmax(1, keepdim=True)
    others = values.sum(1, keepdim=True) - values
    return others.scatter(1, largest, values.scatter(1, largest, 0).sum(1, keepdim=True))


def _unit_rows(values: Tensor) -> Tensor:
    """Divide each row by its norm, also where the squares are too small for the precision."""
    largest = values.abs().amax(1, keepdim=True)
    return F.normalize(values / torch.where(largest > 0, largest, 1), dim=1)


def _bce(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    own = -torch.sigmoid(-z) / z.shape[1]  # sigmoid(z) - 1 would cancel where z is large
    return torch.sigmoid(z) / z.shape[1], own, own


def _mse(z: Tensor, target: Tensor | float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    own = 2 * (z - target) / z.shape[1]
    return 2 * z / z.shape[1], own, own


def _mse_max(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _mse(z, z.amax(1, keepdim=True))


def _ce(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    p = torch.softmax(z, dim=1)
    return p, -_sum_of_others(p), z.shape[1] * p - 1  # p_i - 1 would cancel where p_i is near 1


CLASS_LOSSES: dict[str, Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]] = {
    "bce": _bce,
    "mse": _mse,
    "mse_max": _mse_max,
    "ce": _ce,
}
"""Name -> function of z giving dJ/dz_j for another class than j, for class j, and for all ones."""
