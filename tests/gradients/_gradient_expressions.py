"""Networks in which images meet not a parameter itself but what functions make of parameters."""

import math

import torch
from _gradient_networks import CLASSES, Function, conv
from torch import Tensor, nn
from torch.nn import functional as F


class Table(Function):
    """Holds the distance between positions, as the row of a table: a plain attribute."""

    def __init__(self, function, **shapes: tuple[int, ...]):
        super().__init__(function, **shapes)
        self.near = torch.arange(4)[:, None] - torch.arange(4) + 3


def scores(x: Tensor) -> Tensor:
    """Two heads of attention between four positions, (B, 2, 4, 4)."""
    q = x.reshape(len(x), 2, 4, -1)
    return q @ q.transpose(2, 3) / 5


def attend(attention: Tensor, x: Tensor) -> Tensor:
    values = x.reshape(len(x), 2, 4, -1)
    return (attention.softmax(-1) @ values).tanh().sum(2).flatten(1)[:, : 2 * CLASSES : 2]


def table_by_index(m: Function, x: Tensor) -> Tensor:
    bias = m.a[m.near.flatten()].view(4, 4, 2).permute(2, 0, 1).contiguous()
    return attend(scores(x) + bias.unsqueeze(0), x)


def table_selected(m: Function, x: Tensor) -> Tensor:
    bias = m.a.index_select(0, m.near.flatten()).view(4, 4, 2)
    other = torch.gather(m.b, 1, m.near.flatten().expand(2, -1)).view(1, 2, 4, 4)
    return attend(scores(x) + bias.movedim(-1, 0) - other, x)


def table_of_windows(m: Function, x: Tensor) -> Tensor:
    windows = x.reshape(len(x) * 2, 96)  # two windows an image, side by side
    bias = m.a[m.near.flatten()].view(4, 4, 2).permute(2, 0, 1)
    return attend(scores(windows) + bias, windows).unflatten(0, (len(x), 2)).sum(1)


def table_as_mask(m: Function, x: Tensor) -> Tensor:
    q = x.reshape(len(x), 2, 4, -1)
    bias = m.a[:, m.near]
    return F.scaled_dot_product_attention(q, q, q, attn_mask=bias).tanh().sum(2).flatten(1)[:, :4]


def logit_scale(m: Function, x: Tensor) -> Tensor:
    return attend(scores(x) * m.a.clamp(max=math.log(100)).exp() / m.b.square(), x)


def response(m: Function, x: Tensor) -> Tensor:
    """Global response normalisation of ConvNeXt V2."""
    norm = x.norm(dim=(2, 3), keepdim=True)
    norm = norm / norm.mean(1, keepdim=True)
    return m.module(x + torch.addcmul(m.a.view(1, -1, 1, 1), m.b.view(1, -1, 1, 1), x * norm))


def layer_scale(m: Function, x: Tensor) -> Tensor:
    return m.module((x + 0).mul_(m.a).add_(m.b.sigmoid(), alpha=2))


def biases_together(m: Function, x: Tensor) -> Tensor:
    bias = torch.cat([m.a, torch.zeros_like(m.b), m.b])
    return m.module(F.linear(x.flatten(2), torch.stack([m.c, m.d, m.c]).flatten(0, 1), bias)).sum(1)


def bias_without_a_part(m: Function, x: Tensor) -> Tensor:
    bias = m.a.clone()
    bias[1:2].zero_()
    return F.linear(x.flatten(1), m.b, bias)


def position_network(m: Function, x: Tensor) -> Tensor:
    places = torch.linspace(-1, 1, 7, dtype=x.dtype)[:, None]
    table = 4 * torch.sigmoid(F.relu(places @ m.a + m.b, inplace=True) @ m.c)
    return attend(scores(x) + table[m.near].permute(2, 0, 1), x)


def position_for_every_image(m: Function, x: Tensor) -> Tensor:
    places = torch.linspace(-1, 1, 8, dtype=x.dtype).expand(len(x), 8, 8)
    return m.module(x + F.linear(places, m.a, m.b).unsqueeze(1))


def standardised(m: Function, x: Tensor) -> Tensor:
    weight = F.batch_norm(m.a.view(1, 5, -1), None, None, m.b, training=True, momentum=0.0)
    return F.conv2d(x, weight.view_as(m.a)).tanh().mean((2, 3))[:, :4]


def standardised_by_hand(m: Function, x: Tensor) -> Tensor:
    deviation, mean = torch.std_mean(m.a, dim=1, keepdim=True)
    return F.linear(x.flatten(1), (m.a - mean) / (deviation + 1e-5), m.b)


def weight_in_parts(m: Function, x: Tensor) -> Tensor:
    first, second = m.a.chunk(2)
    x = x.flatten(2)
    return (F.linear(x, first).tanh() * F.linear(x, second, m.b)).sum(1)


def left_of_images(m: Function, x: Tensor) -> Tensor:
    return m.module((m.a.exp() @ x.flatten(2)).unsqueeze(1))


def table_in_two_places(m: Function, x: Tensor) -> Tensor:
    bias = m.a[m.near.flatten()].view(4, 4, 2).permute(2, 0, 1)
    return attend(scores(x) + bias, x) + attend((scores(x) * 3).sin() - bias, x)


def words_and_their_weights(m: Function, x: Tensor) -> Tensor:
    """A table that is both read by the images and multiplied with what was read."""
    return (F.embedding(x, m.a).mean(1) @ m.a.t()).tanh()[:, :4]


def token_repeated(m: Function, x: Tensor) -> Tensor:
    return m.module(torch.cat([m.a.exp().repeat(len(x), 1, 1, 1), x], 2))


def mask_token(m: Function, x: Tensor) -> Tensor:
    return m.module(torch.where(x > 0.5, m.a, x))


EXPRESSIONS = {
    "table-by-index": lambda: Table(table_by_index, a=(7, 2)),
    "table-selected": lambda: Table(table_selected, a=(7, 2), b=(2, 7)),
    "table-of-windows": lambda: Table(table_of_windows, a=(7, 2)),
    "table-as-mask": lambda: Table(table_as_mask, a=(2, 7)),
    "table-in-two-places": lambda: Table(table_in_two_places, a=(7, 2)),
    "logit-scale": lambda: Function(logit_scale, a=(2, 1, 1), b=(1,)),
    "response": lambda: Function(response, conv(3, 5, 3), a=(3,), b=(3,)),
    "layer-scale": lambda: Function(layer_scale, conv(3, 5, 3), a=(3, 1, 1), b=(8,)),
    "biases-together": lambda: Function(
        biases_together, nn.Linear(6, CLASSES), a=(2,), b=(2,), c=(2, 64), d=(2, 64)
    ),
    "bias-without-a-part": lambda: Function(bias_without_a_part, a=(4,), b=(4, 192)),
    "position-network": lambda: Table(position_network, a=(1, 6), b=(6,), c=(6, 2)),
    "position-for-every-image": lambda: Function(
        position_for_every_image, conv(3, 5, 3), a=(8, 8), b=(8,)
    ),
    "standardised": lambda: Function(standardised, a=(5, 3, 3, 3), b=(5,)),
    "standardised-by-hand": lambda: Function(standardised_by_hand, a=(4, 192), b=(4,)),
    "weight-in-parts": lambda: Function(weight_in_parts, a=(8, 64), b=(4,)),
    "left-of-images": lambda: Function(left_of_images, conv(1, 5, 3), a=(4, 3)),
    "words-and-their-weights": lambda: Function(words_and_their_weights, a=(5, 6)),
    "token-repeated": lambda: Function(token_repeated, conv(3, 5, 3), a=(3, 2, 8)),
    "mask-token": lambda: Function(mask_token, conv(3, 5, 3), a=(3, 1, 1)),
}
"""Name -> what makes the network; `words` take whole numbers."""
