"""The settings table: module, input and loss, and by which way."""

from collections.abc import Callable, Mapping
from functools import cache, partial
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from _gradient_expressions import EXPRESSIONS as expressions
from _gradient_networks import (
    CLASSES,
    Bare,
    Branching,
    Buffered,
    CrossAttention,
    Folded,
    Function,
    InPlace,
    Recurrent,
    Tokens,
    TokensFirst,
    Twice,
    Vision,
    Words,
    conv,
    frozen,
    head,
    swin,
)
from _gradient_truth import gradients, randomise
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.convnext import LayerNorm2d

from gradbench.backbones.small_cnn import SmallCNN
from gradbench.gradients import KHot, RandomKHot, as_loss
from gradbench.gradients.losses import of_images_and_outputs


def scaled(use: Callable[[Tensor, Tensor], Tensor], shape: tuple[int, ...]) -> nn.Module:
    """Logits and a parameter `t` of a single element."""
    return Function(lambda m, x: use(m.module(x.flatten(1)), m.t), nn.Linear(192, CLASSES), t=shape)


class Setting(NamedTuple):
    """One line of the table.

    Args:
        make: makes the network.
        alone: beginnings of the names that need one image at a time; None where PyTorch decides.
        shape: of an image.
        options: label, loss and reduction.
        integers: whether images are whole numbers, 0 to 4.
    """

    make: Callable[[], nn.Module]
    alone: tuple[str, ...] | None = ()
    shape: tuple[int, ...] = (3, 8, 8)
    options: Mapping[str, Any] = MappingProxyType({})
    integers: bool = False


class Case(NamedTuple):
    """A setting at work; `loss` takes images and outputs."""

    model: nn.Module
    images: Tensor
    loss: Callable[[Tensor, Tensor], Tensor]
    gradients: list[list[Tensor]]

    @property
    def truth(self) -> Tensor:
        return torch.stack([torch.stack([g.square().sum() for g in row]) for row in self.gradients])


conv1d = partial(conv, kind=nn.Conv1d)
conv3d = partial(conv, kind=nn.Conv3d)
transposed1d = partial(conv, kind=nn.ConvTranspose1d)
transposed2d = partial(conv, kind=nn.ConvTranspose2d)
transposed3d = partial(conv, kind=nn.ConvTranspose3d)
LINE, BOX, WIDE = (4, 11), (2, 4, 5, 3), (3, 7, 10)

CONVOLUTIONS = {
    "conv": Setting(partial(conv, 3, 5, 3)),
    "conv-padding": Setting(partial(conv, 3, 5, 3, padding=1), shape=WIDE),
    "conv-stride": Setting(partial(conv, 3, 5, 3, stride=2, padding=1), shape=WIDE),
    "conv-stride-beyond-kernel": Setting(partial(conv, 3, 5, 2, stride=3), shape=WIDE),
    "conv-uneven": Setting(
        partial(conv, 3, 5, (3, 2), stride=(1, 2), padding=(2, 1), dilation=(2, 1)), shape=WIDE
    ),
    "conv-dilation-stride": Setting(
        partial(conv, 3, 5, 3, stride=2, padding=3, dilation=3), shape=(3, 11, 9)
    ),
    "conv-padding-beyond-kernel": Setting(partial(conv, 3, 5, 2, padding=3), shape=(3, 3, 4)),
    "conv-same": Setting(partial(conv, 3, 5, (4, 3), padding="same", bias=False), shape=WIDE),
    "conv-same-dilation": Setting(partial(conv, 3, 5, (2, 4), padding="same", dilation=(3, 1))),
    "conv-valid": Setting(partial(conv, 3, 5, 3, padding="valid")),
    "conv-reflect": Setting(partial(conv, 3, 5, 3, padding=1, padding_mode="reflect")),
    "conv-circular": Setting(partial(conv, 3, 5, 3, padding=(2, 1), padding_mode="circular")),
    "conv-replicate-same": Setting(
        partial(conv, 3, 5, 4, padding="same", padding_mode="replicate"), shape=WIDE
    ),
    "conv-groups": Setting(
        lambda: head(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 8, 3, groups=2), channels=8)
    ),
    "conv-depthwise": Setting(partial(conv, 3, 6, 3, stride=2, padding=1, groups=3), shape=WIDE),
    "conv-depthwise-same": Setting(partial(conv, 3, 3, 4, padding="same", groups=3)),
    "conv-1x1": Setting(partial(conv, 3, 5, 1)),
    "conv-1x1-stride": Setting(partial(conv, 3, 5, 1, stride=(2, 3)), shape=WIDE),
    "conv-1x1-padding": Setting(partial(conv, 3, 5, 1, stride=2, padding=1)),
    "conv-whole-image": Setting(partial(conv, 3, 5, 8)),
    "conv-many-channels": Setting(
        lambda: head(nn.Conv2d(3, 40, 3, 2, 1), nn.Conv2d(40, 40, 3, 2, 1), channels=40)
    ),
    "conv1d": Setting(partial(conv1d, 4, 6, 3, stride=2, padding=2), shape=LINE),
    "conv1d-dilation-groups": Setting(
        partial(conv1d, 4, 6, 3, padding=1, dilation=2, groups=2), shape=LINE
    ),
    "conv1d-same": Setting(partial(conv1d, 4, 6, 4, padding="same"), shape=LINE),
    "conv1d-circular": Setting(
        partial(conv1d, 4, 6, 3, padding=2, padding_mode="circular"), shape=LINE
    ),
    "conv3d": Setting(
        partial(conv3d, 2, 4, (2, 3, 2), stride=(1, 2, 1), padding=(1, 0, 1)), shape=BOX
    ),
    "conv3d-groups": Setting(
        partial(conv3d, 2, 4, 2, padding=1, dilation=(1, 2, 1), groups=2), shape=BOX
    ),
    "transposed1d": Setting(
        partial(transposed1d, 4, 6, 3, stride=3, padding=1, output_padding=2), shape=LINE
    ),
    "transposed1d-groups": Setting(
        partial(transposed1d, 4, 6, 3, stride=2, dilation=2, groups=2), shape=LINE
    ),
    "transposed2d": Setting(partial(transposed2d, 3, 5, 3)),
    "transposed2d-uneven": Setting(
        partial(
            *(transposed2d, 3, 5, (3, 2)),
            stride=(2, 3),
            padding=(1, 0),
            output_padding=(1, 2),
            dilation=(1, 2),
        ),
        shape=(3, 3, 5),
    ),
    "transposed2d-groups": Setting(
        partial(transposed2d, 3, 6, 4, stride=2, padding=1, groups=3), shape=(3, 3, 4)
    ),
    "transposed2d-1x1": Setting(partial(transposed2d, 3, 5, 1, stride=2), shape=(3, 3, 4)),
    "transposed3d": Setting(
        partial(
            transposed3d, 2, 4, 2, stride=(2, 1, 2), padding=(1, 0, 0), output_padding=(1, 0, 1)
        ),
        shape=(2, 2, 3, 2),
    ),
    "transposed3d-groups": Setting(
        partial(transposed3d, 2, 4, 2, dilation=(1, 2, 1), groups=2), shape=(2, 2, 3, 2)
    ),
}

NORMALISATIONS = {
    "batch-norm": Setting(lambda: head(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), channels=5)),
    "batch-norm-1d": Setting(
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.BatchNorm1d(6), nn.Linear(6, 4))
    ),
    "batch-norm-3d": Setting(lambda: head(nn.BatchNorm3d(2, eps=0.1), channels=2), shape=BOX),
    "batch-norm-no-affine": Setting(lambda: head(nn.BatchNorm2d(3, affine=False), channels=3)),
    "group-norm": Setting(lambda: head(nn.Conv2d(3, 6, 3), nn.GroupNorm(3, 6), channels=6)),
    "group-norm-1d": Setting(lambda: head(nn.GroupNorm(2, 4, eps=0.1), channels=4), shape=LINE),
    "group-norm-flat": Setting(
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.GroupNorm(2, 6), nn.Linear(6, 4))
    ),
    "instance-norm": Setting(lambda: head(nn.InstanceNorm2d(3, affine=True), channels=3)),
    "instance-norm-1d": Setting(
        lambda: head(nn.InstanceNorm1d(4, affine=True, eps=0.1), channels=4), shape=LINE
    ),
    "instance-norm-statistics": Setting(
        lambda: head(nn.InstanceNorm2d(3, affine=True, track_running_stats=True), channels=3)
    ),
    "instance-norm-no-affine": Setting(
        lambda: head(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4), channels=4)
    ),
    "layer-norm": Setting(lambda: head(nn.LayerNorm(8), channels=3)),
    "layer-norm-two": Setting(lambda: head(nn.LayerNorm((7, 10), eps=0.1), channels=3), shape=WIDE),
    "layer-norm-all": Setting(lambda: head(nn.LayerNorm((3, 8, 8), bias=False), channels=3)),
    "layer-norm-2d": Setting(lambda: head(LayerNorm2d(3), channels=3), shape=WIDE),
    "standardised-weight": Setting(
        lambda: Function(
            lambda m, x: m.module(
                F.conv2d(
                    x, F.batch_norm(m.a.view(1, 4, -1), None, None, training=True).view(4, 3, 3, 3)
                )
            ),
            head(nn.GroupNorm(2, 4), channels=4),
            a=(4, 27),
        ),
        None,
    ),
    "rms-norm": Setting(lambda: head(nn.RMSNorm(8), channels=3)),
    "rms-norm-two": Setting(lambda: head(nn.RMSNorm((7, 10), eps=0.1), channels=3), shape=WIDE),
}

ROWS = {
    "linear": Setting(
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 9), nn.Tanh(), nn.Linear(9, 4))
    ),
    "linear-few-rows": Setting(partial(Tokens, 2, 16)),
    "linear-many-rows": Setting(partial(Tokens, 32, 3)),
    "linear-many-dimensions": Setting(lambda: head(nn.Linear(8, 5), channels=3)),
    "linear-tokens-first": Setting(partial(TokensFirst, 8, 6)),
    "linear-folded": Setting(partial(Folded, 8, 6, False)),
    "linear-folded-apart": Setting(partial(Folded, 8, 6, True)),
    "matmul": Setting(
        lambda: Function(
            lambda m, x: x.flatten(1) @ m.a + torch.matmul(x[:, 0, 0], m.b), a=(192, 4), b=(8, 4)
        )
    ),
    "vision": Setting(Vision),
    "vision-tokens-first": Setting(partial(Vision, batch_first=False)),
    "vision-position-subtracted": Setting(partial(Vision, position_sign=-1)),
    "cross-attention": Setting(CrossAttention, None),
    "encoder-layer": Setting(
        lambda: Function(
            lambda m, x: m.module(x[:, 0])[:, 0, :CLASSES],
            nn.TransformerEncoderLayer(8, 2, 12, batch_first=True),
        )
    ),
    "encoder-layer-norm-first": Setting(
        lambda: Function(
            lambda m, x: m.module(x[:, 0].transpose(0, 1))[0, :, :CLASSES],
            nn.TransformerEncoderLayer(8, 2, 12, norm_first=True, bias=False),
        )
    ),
    "windows": Setting(swin),
    "embedding": Setting(Words, shape=(7,), integers=True),
    "embedding-padding": Setting(partial(Words, padding_idx=2), shape=(7,), integers=True),
    "embedding-padding-from-end": Setting(
        partial(Words, padding_idx=-1), shape=(7,), integers=True
    ),
    "embedding-function": Setting(
        lambda: Function(
            lambda m, x: nn.functional.embedding(x, m.a, padding_idx=-2).tanh().sum(1), a=(5, 4)
        ),
        shape=(7,),
        integers=True,
    ),
    "embedding-sparse": Setting(partial(Words, sparse=True), shape=(7,), integers=True),
    "embedding-sparse-twice": Setting(
        lambda: Function(
            lambda m, x: (m.module(x) * m.module(x.flip(1))).tanh().sum(1),
            nn.Embedding(5, CLASSES, sparse=True),
        ),
        shape=(7,),
        integers=True,
    ),
    "embedding-sparse-beside": Setting(
        lambda: Function(
            lambda m, x: torch.einsum("btk,t->bk", m.module(x).tanh(), m.a),
            nn.Embedding(5, CLASSES, sparse=True),
            a=(7,),
        ),
        ("a",),
        (7,),
        integers=True,
    ),
    "embedding-by-frequency": Setting(
        partial(Words, scale_grad_by_freq=True), ("table",), (7,), integers=True
    ),
}

BARE = {
    "bare": Setting(Bare),
    "prelu": Setting(lambda: head(nn.Conv2d(3, 5, 3), nn.PReLU(5), nn.PReLU(), channels=5)),
    "expand": Setting(
        lambda: Function(
            lambda m, x: m.module(torch.cat([m.a.expand(len(x), 1, 8, 8), x], 1)),
            conv(4, 5, 3),
            a=(1, 8),
        )
    ),
    "subtract": Setting(
        lambda: Function(lambda m, x: m.module(x - m.a), conv(3, 5, 3), a=(1, 1, 8))
    ),
    "subtract-from": Setting(
        lambda: Function(lambda m, x: m.module(m.a - x), conv(3, 5, 3), a=(3, 8, 8))
    ),
    "in-place-sum": Setting(
        lambda: Function(
            lambda m, x: m.module((x * 2).add_(m.a).sub_(m.b)), conv(3, 5, 3), a=(8,), b=(3, 1, 1)
        ),
        None,
    ),
    "sum-with-factor": Setting(
        lambda: Function(
            lambda m, x: m.module(torch.add(x, m.a, alpha=3)), conv(3, 5, 3), a=(3, 8, 8)
        )
    ),
    "scalar": Setting(
        lambda: Function(lambda m, x: m.module(m.a * x) * m.b, conv(3, 5, 3), a=(), b=(1,))
    ),
    "temperature": Setting(lambda: scaled(lambda z, t: z / (1.5 + t), ())),
    "temperature-of-one-element": Setting(lambda: scaled(lambda z, t: z / (1.5 + t), (1,))),
    "logit-scale": Setting(lambda: scaled(lambda z, t: z * t.exp(), ())),
    "logit-scale-of-one-element": Setting(lambda: scaled(lambda z, t: t.exp() * z, (1,))),
    "gate": Setting(lambda: scaled(lambda z, t: z + t.tanh() * z, ())),
    "gate-of-two": Setting(
        lambda: scaled(lambda z, t: t.sigmoid() * z + (1 - t.sigmoid()) * z.tanh(), ())
    ),
    "scalars-by-rules": Setting(
        lambda: Function(
            lambda m, x: m.module(m.c.expand(len(x), 3, 8, 8) - m.a * (x + m.b)),
            conv(3, 5, 3),
            a=(),
            b=(),
            c=(),
        ),
        None,
    ),
    "scalar-power": Setting(lambda: scaled(lambda z, t: (z.square() + 1) ** t, ()), ("t",)),
    "view": Setting(
        lambda: Function(
            lambda m, x: (m.a.view(3, 1, 2)[..., None] * x.view(-1, 3, 4, 2, 8))
            .sum((1, 3))
            .tanh()
            .flatten(1),
            a=(6,),
        )
    ),
    "transposed-view": Setting(
        lambda: Function(lambda m, x: x.flatten(1) @ m.a.T + m.b.reshape(4), a=(4, 192), b=(2, 2))
    ),
    "part-of-a-parameter": Setting(
        lambda: Function(lambda m, x: x.flatten(1) @ m.a[:192] + m.a[192], a=(193, 4))
    ),
    "changed-copy": Setting(
        lambda: Function(lambda m, x: x.flatten(1) @ m.a.T.contiguous().mul_(2), a=(4, 192))
    ),
    "expression": Setting(
        lambda: Function(lambda m, x: m.module(x * m.a.exp()), conv(3, 5, 3), a=(3, 1, 1))
    ),
    "einsum": Setting(
        lambda: Function(lambda m, x: torch.einsum("bchw,chwk->bk", x, m.a), a=(3, 8, 8, 4)), None
    ),
    "broadcast-the-images": Setting(
        lambda: Function(
            lambda m, x: (x[:, 0, 0, :4] * m.a).sum(0).add(x[:, 1, 1, :4]), a=(3, 1, 4)
        ),
        ("a",),
    ),
    "bilinear": Setting(
        lambda: Function(lambda m, x: m.module(x[:, 0, 0], x[:, 1, 1]), nn.Bilinear(8, 8, CLASSES)),
        ("module",),
    ),
    "recurrent": Setting(Recurrent, ("rnn",)),
    "twice": Setting(Twice),
    "weight-norm": Setting(
        lambda: head(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 5, 3)), channels=5)
    ),
    "frozen": Setting(lambda: frozen(conv(3, 5, 3), "0")),
    "in-place": Setting(InPlace, None),
    "writes-elsewhere": Setting(Buffered),
    "branches": Setting(Branching),
}


def squared_distance(images: Tensor, outputs: Tensor) -> Tensor:
    """The loss of an autoencoder."""
    return (outputs - images).square().flatten(1).sum(1)


def autoencoder() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 5, 3, 2, 1), nn.Tanh(), nn.ConvTranspose2d(5, 3, 4, 2, 1), nn.Sigmoid()
    )


EXPRESSIONS = {
    name: Setting(
        make,
        shape=(7,) if name.startswith("words") else (3, 8, 8),
        integers=name.startswith("words"),
    )
    for name, make in expressions.items()
}

small = partial(SmallCNN, CLASSES, 3, 3)
LOSSES = {
    "bce-sum": Setting(small, options={"reduction": "sum"}),
    "bce-zeros": Setting(small, options={"label": "zeros"}),
    "bce-k-hot": Setting(small, options={"label": KHot((0, 3))}),
    "bce-random": Setting(small, options={"label": RandomKHot(3, seed=5)}),
    "ce-uniform": Setting(small, options={"loss": "ce_uniform"}),
    "ce-uniform-sum": Setting(small, options={"loss": "ce_uniform", "reduction": "sum"}),
    "ce-sum-one-hot": Setting(small, options={"loss": "ce_sum_one_hot"}),
    "ce-some-one-hot": Setting(small, options={"loss": "ce_sum_one_hot", "label": KHot((1, 2))}),
    "mse": Setting(small, options={"loss": "mse"}),
    "mse-zeros": Setting(small, options={"loss": "mse", "label": "zeros", "reduction": "sum"}),
    "function": Setting(small, options={"loss": lambda z: z.logsumexp(1)}),
    "function-of-maps": Setting(
        lambda: nn.Conv2d(3, 2, 3), options={"loss": lambda z: z.square().mean((1, 2, 3))}
    ),
    "autoencoder": Setting(autoencoder, options={"loss": squared_distance}),
}

SETTINGS = CONVOLUTIONS | NORMALISATIONS | ROWS | BARE | EXPRESSIONS | LOSSES


@cache
def case(name: str, images: int = 5) -> Case:
    """Make the network, the images and the truth of a setting; kept, so leave them unchanged."""
    setting = SETTINGS[name]
    torch.manual_seed(0)
    model = randomise(setting.make())
    batch = torch.rand(images, *setting.shape, dtype=torch.float64)
    if setting.integers:
        batch = (batch * 5).long()
    loss = of_images_and_outputs(as_loss(**setting.options))
    return Case(model, batch, loss, gradients(model, batch, loss))
