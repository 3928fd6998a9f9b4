"""Batch normalisation over a batch that several processes hold together."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce  # differentiable
from torch.nn.modules.batchnorm import _BatchNorm


def synchronise_batch_norm(network: nn.Module, device: torch.device) -> None:
    """Make every batch-norm layer normalise over the batches of all processes, in place.

    On CUDA torch's SyncBatchNorm does it, which knows no CPU; elsewhere `CpuSyncBatchNorm`.
    Parameters, buffers and their names stay.
    """
    cuda = device.type == "cuda"
    convert = nn.SyncBatchNorm.convert_sync_batchnorm if cuda else CpuSyncBatchNorm.from_layer
    converted: dict[nn.Module, nn.Module] = {}  # a layer with several names keeps all of them
    for module in list(network.modules()):
        for name, child in module._modules.items():
            if isinstance(child, _BatchNorm) and not isinstance(child, nn.SyncBatchNorm):
                if child not in converted:
                    converted[child] = convert(child)
                module._modules[name] = converted[child]


class CpuSyncBatchNorm(_BatchNorm):
    """Batch normalisation with mean and variance over the images of all processes.

    Takes (B, C) or (B, C, ...) with any B in each process. Statistics are taken in the type of the
    running ones, in two passes. In evaluation mode it is torch's own.
    """

    @classmethod
    def from_layer(cls, norm: _BatchNorm) -> CpuSyncBatchNorm:
        """Return the layer that replaces another one, with its parameters and buffers."""
        new = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        new._parameters, new._buffers = norm._parameters, norm._buffers
        new.training = norm.training
        return new

    def forward(self, values: Tensor) -> Tensor:
        """Normalise; in training mode every process must call it in the same order."""
        if not self.training:
            return super().forward(values)
        kind = torch.float64 if values.dtype == torch.float64 else torch.float32
        wide, over = values.to(kind), [0, *range(2, values.dim())]
        shape = [1, -1, *[1] * (values.dim() - 2)]
        own_count = wide.new_tensor([values.numel() / values.shape[1]])
        total = all_reduce(torch.cat([wide.sum(over), own_count]))
        count = total[-1].detach()
        mean = total[:-1] / count
        centred = wide - mean.view(shape)
        variance = all_reduce(centred.square().sum(over)) / count
        if self.running_mean is not None:
            self.num_batches_tracked.add_(1)
            # without momentum the running statistics are the mean of all batches
            part = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            unbiased = variance.detach() * count / (count - 1)
            self.running_mean.lerp_(mean.detach().to(self.running_mean), part)
            self.running_var.lerp_(unbiased.to(self.running_var), part)
        out = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            out = out * self.weight.view(shape) + self.bias.view(shape)
        return out.to(values.dtype)

    def _check_input_dim(self, values: Tensor) -> None:
        if values.dim() < 2:
            raise ValueError(f"expected (B, C) or (B, C, ...), got {tuple(values.shape)}")
