"""Number formats of a pass: float32 or float64, TensorFloat-32, half precision by autocast.

Relative error of squared norms against float64, and time beside float32 with channels last:
62 tensors, 500 CIFAR-10 test images, ResNet-18 of width 32 with results/weights/resnet18-cifar10-
w32-s0, one thread of an AMD EPYC (`scripts/benchmarks/precision.py` measures it; all figures are in
results/bench):

| precision | median | 99 % of values below | largest | rank correlation of the sum | time |
| --- | --- | --- | --- | --- | --- |
| float32, channels last | 2e-7 | 2e-6 | 3e-3 | 1.00000 | 1 |
| float32, contiguous | 1e-7 | 9e-7 | 3e-3 | 1.00000 | 1.11 |
| bfloat16 | 1.1 % | 10 % | 23 % | 0.99927 | 0.79 |
| float16 | 0.3 % | 4 % | 11 % | 0.99989 | 8.5 |

float64 takes 4.2 times as long; the machine had other work besides, so times are rough. The largest
errors of float32 are of images with an input of a ReLU within rounding of zero. TensorFloat-32 was
not measured: it needs an NVIDIA GPU.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import nn

from gradbench.errors import unknown
from gradbench.gradients.state import tensors_of

DTYPES = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
"""Names of precisions. `tf32` is float32 whose products may use TensorFloat-32 (CUDA); the half
precisions run the network under autocast and keep parameters and all sums of the rules in float32.
"""

HALF = ("bfloat16", "float16")

# Losses of float16 are multiplied by this power of two, and gradients divided by it at the end:
# they lie between 2^-24 and 2^16 there. Measured for 2^-8 to 2^14 on ResNet-18 (trained and not),
# DenseNet-BC, ResNet-50 and a small ViT of 1,000 classes, with several losses and reductions: 2^0
# and 2^4 give practically the same errors everywhere. Smaller ones let gradients vanish (2^-4: ViT,
# median 6e-4 instead of 2e-4; 2^-8: ResNet-50, 7 % instead of 2 %), larger ones make norms infinite
# where losses are summed over 1,000 classes (2^10: the first ones; 2^14: up to all).
FLOAT16_SCALE = 2.0**4


def check_precision(precision: str | None) -> None:
    """Raise a GradbenchError unless the precision is a name of `DTYPES` or None."""
    if precision is not None and not (isinstance(precision, str) and precision in DTYPES):
        raise unknown("precision", repr(precision), DTYPES)


def network_for(model: nn.Module, precision: str | None) -> nn.Module:
    """Return the model, or a copy of it in the number format that the precision asks for.

    A copy is made only where a parameter has another format, or was made in inference mode; None
    leaves the format as it is.
    """
    wanted = torch.float64 if precision == "float64" else torch.float32
    fits = precision is None or all(
        p.dtype == wanted for p in model.parameters() if p.is_floating_point()
    )
    # Autograd takes no tensor that was made in inference mode; its copy made outside is another.
    frozen = any(t.is_inference() for t in tensors_of(model))
    if fits and not frozen:
        return model
    with torch.inference_mode(False):
        twin = copy.deepcopy(model)
        return twin if fits else twin.to(wanted)


@contextmanager
def arithmetic(precision: str | None, device: torch.device) -> Iterator[None]:
    """Run the block with the precision's settings; the former ones come back afterwards.

    TensorFloat-32 is off, except for `tf32` and for half precision, whose values it holds exactly.
    """
    allowed = precision in ("tf32", *HALF)
    matmul, convolution = torch.backends.cuda.matmul, torch.backends.cudnn
    if hasattr(matmul, "fp32_precision"):  # torch 2.9 and later, where the old names may be refused
        settings = [(matmul, "fp32_precision"), (convolution.conv, "fp32_precision")]
        value: object = "tf32" if allowed else "ieee"
    else:
        settings = [(matmul, "allow_tf32"), (convolution, "allow_tf32")]
        value = allowed
    before = [getattr(*setting) for setting in settings]
    # Without a precision of its own a pass takes the caller's autocast, whatever that is.
    half = precision in HALF
    cast = (
        torch.autocast(device.type, DTYPES[precision], enabled=half) if precision else nullcontext()
    )
    try:
        for where, name in settings:
            setattr(where, name, value)
        with cast:
            yield
    finally:
        for (where, name), former in zip(settings, before):
            setattr(where, name, former)


def prefers_channels_last(device: torch.device, precision: str | None, dtype: torch.dtype) -> bool:
    """Whether images are better laid out with channels last, by device and number format.

    Measured on a 2-core CPU, float32, CIFAR ResNet-18: forward and backward without weight
    gradients take 0.85 of the time of contiguous images. float64 has no such kernels; on a GPU
    those of half precision and TensorFloat-32 want it.
    """
    if dtype == torch.float64:
        return False
    return device.type == "cpu" or precision in ("tf32", *HALF)
