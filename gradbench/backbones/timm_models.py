"""Networks of the library timm (Wightman 2019), by name."""

from typing import Any

from torch import nn

from gradbench.errors import GradbenchError, unknown


def timm_model(model: str | None, classes: int, channels: int = 3, **options: Any) -> nn.Module:
    """Build a network of timm with fresh weights; those of others come from backbone.checkpoint.

    Args:
        model: a name of `timm.list_models()`, with or without the tag of its weights.
        classes: number of classes.
        channels: of the images.
        options: what else `timm.create_model` takes, such as `img_size`.

    Raises:
        GradbenchError: if timm is not installed, or knows no such model.
    """
    try:
        import timm
    except ImportError as fault:
        raise GradbenchError(
            f"backbone=timm needs the package timm: pip install 'gradbench[timm]' ({fault})"
        ) from fault
    if not model:
        raise GradbenchError(
            "backbone=timm names no model: backbone.model=NAME, a name of timm.list_models(), for "
            "example resnet18"
        )
    if not timm.is_model(model):
        raise unknown("model of timm", model, timm.list_models())
    return timm.create_model(
        model, pretrained=False, num_classes=classes, in_chans=channels, **options
    )
