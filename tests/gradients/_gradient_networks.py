"""Small networks that use their parameters in every way that the engine promises to take."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.swin_transformer import SwinTransformer

CLASSES = 4


def head(*layers: nn.Module, channels: int) -> nn.Sequential:
    """Layers, a nonlinearity, the mean over positions and a linear layer."""
    return nn.Sequential(*layers, nn.Tanh(), Mean(), nn.Linear(channels, CLASSES))


def conv(*args, kind: type[nn.Module] = nn.Conv2d, **kwargs) -> nn.Sequential:
    layer = kind(*args, **kwargs)
    return head(layer, channels=layer.out_channels)


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        # a weight per position: a mean would hide a gradient that arrives at the wrong one
        x = x.flatten(2)
        return x @ torch.linspace(-1, 2, x.shape[2], dtype=x.dtype)


class Function(nn.Module):
    """A function of a module, of named parameters and of the images."""

    def __init__(self, function, module: nn.Module | None = None, **shapes: tuple[int, ...]):
        super().__init__()
        self.function, self.module = function, module
        for name, shape in shapes.items():
            setattr(self, name, nn.Parameter(torch.randn(shape)))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


class Tokens(nn.Module):
    """Linear layers on several rows per image."""

    def __init__(self, rows: int, width: int):
        super().__init__()
        self.embed, self.mix = nn.Linear(64 // rows, width), nn.Linear(width, width, bias=False)
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, CLASSES)
        self.rows = rows

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, 0].reshape(len(x), self.rows, -1)
        return self.out(self.norm(self.mix(F.gelu(self.embed(x)))).mean(1))


class TokensFirst(Tokens):
    """The same with the tokens in the first dimension and the images in the second."""

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, 0].reshape(len(x), self.rows, -1).transpose(0, 1)
        return self.out(self.norm(self.mix(F.gelu(self.embed(x)))).mean(0))


class Folded(Tokens):
    """The same with the tokens folded into the first dimension, side by side or apart."""

    def __init__(self, rows: int, width: int, apart: bool):
        super().__init__(rows, width)
        self.apart = apart

    def forward(self, x: Tensor) -> Tensor:
        x, images = x[:, 0].reshape(len(x), self.rows, -1), len(x)
        x = (x.transpose(0, 1) if self.apart else x).flatten(0, 1)
        x = self.norm(self.mix(F.gelu(self.embed(x))))
        shape = (self.rows, images) if self.apart else (images, self.rows)
        return self.out(x.unflatten(0, shape).mean(0 if self.apart else 1))


class Twice(nn.Module):
    """A convolution used twice, a tied weight and a module used as a function."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
        self.b.weight = self.a.weight
        self.out = nn.Linear(3, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(torch.tanh(self.conv(x))).mean((2, 3))
        return F.linear(self.b(torch.tanh(self.a(x))), self.out.weight, self.out.bias)


class Bare(nn.Module):
    """Bare parameters, one that is not used, one that also acts outside its layer."""

    def __init__(self):
        super().__init__()
        self.shift, self.scale = nn.Parameter(torch.randn(3, 1, 1)), nn.Parameter(torch.randn(3))
        self.unused, self.conv = nn.Parameter(torch.randn(2)), nn.Conv2d(3, 5, 3)
        self.out = nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x * self.scale.view(-1, 1, 1) + self.shift).sigmoid().mean((2, 3))
        return self.out(x) + self.conv.weight.square().mean()


class Vision(nn.Module):
    """Patches, a class token, a position embedding, attention and a layer scale."""

    def __init__(self, batch_first: bool = True, position_sign: int = 1):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.token, self.position = (
            nn.Parameter(torch.randn(1, 1, 8)),
            nn.Parameter(torch.randn(1, 5, 8)),
        )
        self.attention = nn.MultiheadAttention(8, 2, batch_first=batch_first)
        self.scale, self.out = nn.Parameter(torch.randn(8)), nn.Linear(8, CLASSES)
        self.sign, self.batch_first = position_sign, batch_first

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        x = x + self.position if self.sign > 0 else x - self.position
        y = x if self.batch_first else x.transpose(0, 1)
        y = self.attention(y, y, y, need_weights=False)[0]
        x = x + self.scale * (y if self.batch_first else y.transpose(0, 1))
        return self.out(x[:, 0])


class CrossAttention(nn.Module):
    """Learned queries look at the rows of the image."""

    def __init__(self):
        super().__init__()
        self.query, self.attention = (
            nn.Parameter(torch.randn(1, 3, 8)),
            nn.MultiheadAttention(8, 2, batch_first=True),
        )
        self.out = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        query = self.query.expand(len(x), -1, -1)
        return self.out(self.attention(query, x[:, 1], x[:, 0])[0].tanh().sum(1))


class InPlace(nn.Module):
    """In-place changes of what layers returned, a view of a linear layer's output among them."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.rows, self.out = nn.Linear(8, 8), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x)).relu_()
        x = self.rows(x.flatten(2).transpose(1, 2).contiguous()).relu_()
        return self.out(x.mean(1)).mul_(2)


class Words(nn.Module):
    """Integer images whose values pick rows of a table; values repeat."""

    def __init__(self, **options):
        super().__init__()
        self.table, self.out = nn.Embedding(5, 6, **options), nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        weights = torch.linspace(-1, 1, x.shape[1], dtype=torch.float64)[:, None]
        return self.out((self.table(x) * weights).sum(1).tanh())


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.out = nn.LSTM(8, 5, batch_first=True), nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(x[:, 0])[0][:, -1])


class Buffered(nn.Module):
    """Writes into a tensor that does not depend on the image."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        found = torch.zeros(len(x), CLASSES, dtype=x.dtype)
        for row in range(3):
            found += self.fc(x[:, 0, row]).tanh() if row == 0 else x[:, :1, 0, row]
        return found


class Branching(nn.Module):
    """Reads a value that depends on the image to decide what to do."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(192, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x.flatten(1))
        return y.tanh() if y.max() < 1e6 else y


def frozen(model: nn.Module, *names: str) -> nn.Module:
    for name in names:
        model.get_submodule(name).requires_grad_(False)
    return model


def swin(num_classes: int = CLASSES, **options) -> nn.Module:
    """Windows folded into the first dimension, shifted in every second block."""
    model = SwinTransformer([2, 2], 8, [2, 2], [2, 2], [2, 2], num_classes=num_classes, **options)
    with torch.no_grad():  # they start so small that attention has hardly a gradient
        for parameter in model.parameters():
            parameter.mul_(10 if parameter.ndim == 2 else 1)
    return model
