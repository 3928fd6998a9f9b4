"""torchvision's classification networks, unmodified, against the loop in float64."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import pytest
import torch
from _gradient_networks import swin
from _gradient_truth import ALONE, assert_exact, loop, randomise
from torch import nn
from torchvision import models
from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformerBlockV2

from gradbench.gradients import squared_norms


class Network(NamedTuple):
    """One network.

    Args:
        make: makes it for four classes; the published constructor wherever that is small enough.
        size: side of its images.
        images: how many.
    """

    make: Callable[..., nn.Module]
    size: int = 32
    images: int = 3


NETWORKS = {
    "resnet18": Network(models.resnet18),
    "densenet121": Network(models.densenet121),
    "regnet_y": Network(models.regnet_y_400mf),
    "efficientnet_b0": Network(models.efficientnet_b0),
    "mobilenet_v3": Network(models.mobilenet_v3_small),
    "shufflenet": Network(models.shufflenet_v2_x0_5, size=48),
    "squeezenet": Network(models.squeezenet1_1, size=48),
    "googlenet": Network(partial(models.googlenet, aux_logits=False, init_weights=False)),
    "convnext": Network(
        partial(
            models.ConvNeXt,
            [models.convnext.CNBlockConfig(12, 24, 2), models.convnext.CNBlockConfig(24, None, 1)],
        )
    ),
    "vit": Network(partial(models.VisionTransformer, 32, 8, 2, 2, 16, 32)),
    "maxvit": Network(
        partial(models.MaxVit, (32, 32), 8, 4, [8, 16], [1, 1], 8, 0.0),
    ),
    "swin": Network(swin, 16),
    # its attention sets the key's part of a cloned bias to zero and computes its position biases
    "swin_v2": Network(
        partial(swin, block=SwinTransformerBlockV2, downsample_layer=PatchMergingV2), 16
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_network(name):
    make, size, count = NETWORKS[name]
    model = randomise(make(num_classes=4))
    images = torch.rand(count, 3, size, size, dtype=torch.float64)
    truth = loop(model, images)
    assert (truth > 0).float().mean() > 0.95
    found = squared_norms(model, images, chunk=count)
    assert_exact(found.values, truth)
    assert ALONE not in found.routes.values()
