"""The truth of these tests: one ordinary backward pass per image, in float64."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ALONE = "one image at a time"
BESIDE = f"{ALONE} too"


def bce(images: Tensor, outputs: Tensor) -> Tensor:
    """The default loss of the engine, by PyTorch's own function."""
    ones = torch.ones_like(outputs)
    return F.binary_cross_entropy_with_logits(outputs, ones, reduction="none").mean(1)


def gradients(model: nn.Module, images: Tensor, loss: Callable) -> list[list[Tensor]]:
    """Per image, the gradient of every parameter, frozen ones too; `loss` takes images and outputs.

    Nothing of the engine is used here, so that it can be checked.
    """
    required = [p.requires_grad for p in model.parameters()]
    rows = []
    for image in images.split(1):
        model.requires_grad_(True).zero_grad(set_to_none=True)
        loss(image, model(image.clone())).sum().backward()
        rows.append([torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()])
    model.zero_grad(set_to_none=True)
    for parameter, was in zip(model.parameters(), required):
        parameter.requires_grad_(was)
    return rows


def loop(model: nn.Module, images: Tensor, loss: Callable = bce) -> Tensor:
    """Squared norms, (B, d)."""
    rows = gradients(model, images, loss)
    return torch.stack([torch.stack([g.square().sum() for g in row]) for row in rows])


def assert_exact(values: Tensor, truth: Tensor) -> None:
    """|n - truth| <= 1e-9 truth + 1e-16 max over tensors of truth."""
    bound = 1e-9 * truth + 1e-16 * truth.max(1, keepdim=True).values
    assert values.dtype == truth.dtype == torch.float64
    assert values.shape == truth.shape
    wrong = ((values - truth).abs() > bound).nonzero()
    assert len(wrong) == 0, f"(image, tensor): {wrong.tolist()}"


def randomise(model: nn.Module) -> nn.Module:
    """float64, evaluation mode, and no statistic, scale or shift left at its initial 0 or 1."""
    model.double().eval()
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.3)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 2)
        for parameter in model.parameters():
            # scales start as 1 (or tiny), shifts and some heads as 0
            if parameter.ndim <= 1 or parameter.std(correction=0) < 1e-3:
                parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model
