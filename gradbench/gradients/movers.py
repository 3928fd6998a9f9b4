"""Finds networks that move images about within a batch: routing, sorting, slices of the batch.

The witness sees the first image alone. Were only others reordered, or mixed, between a layer's rows
it would not notice. So the functions that pick or reorder elements are noted with the lengths of
the dimensions that they work along: a length that differs between one image and a batch belongs to
the images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

ALL = None

# name of a function and method of the same name -> position, keyword and default of its dimension
_ALONG: dict[str, tuple[int, str, int | None]] = {
    **dict.fromkeys(("sort", "argsort"), (1, "dim", -1)),
    **dict.fromkeys(("topk", "kthvalue"), (2, "dim", -1)),
    **dict.fromkeys(("unbind", "select", "narrow", "index_select", "gather"), (1, "dim", 0)),
    **dict.fromkeys(("index_add", "index_copy", "index_fill", "scatter"), (1, "dim", 0)),
    **dict.fromkeys(("scatter_add", "scatter_reduce"), (1, "dim", 0)),
    **dict.fromkeys(("index_add_", "index_copy_", "index_fill_", "scatter_"), (1, "dim", 0)),
    **dict.fromkeys(("scatter_add_", "scatter_reduce_"), (1, "dim", 0)),
    **dict.fromkeys(("split", "chunk", "tensor_split"), (2, "dim", 0)),
    "split_with_sizes": (2, "dim", 0),
    "take_along_dim": (2, "dim", ALL),
    "roll": (2, "dims", ALL),
    "flip": (1, "dims", ALL),
}
# functions that may take any element anywhere
_ANYWHERE = (
    *("take", "masked_select", "masked_scatter", "masked_scatter_", "nonzero", "unique", "put"),
    *("put_", "index_put", "index_put_", "rot90", "argwhere", "fliplr", "flipud", "unravel_index"),
)


def _both(name: str) -> list[Callable]:
    return [getattr(where, name) for where in (torch, Tensor) if hasattr(where, name)]


ALONG = {function: how for name, how in _ALONG.items() for function in _both(name)}
ANYWHERE = frozenset(function for name in _ANYWHERE for function in _both(name))
INDEXED = frozenset([Tensor.__getitem__, Tensor.__setitem__])


def moved(
    function: Callable, arguments: Sequence[Any], keywords: Mapping[str, Any]
) -> tuple[int, ...] | None:
    """Return the lengths of the dimensions along which a call picks or reorders; None if none.

    Args:
        function: as a function mode sees it.
        arguments: of the call.
        keywords: of the call.
    """
    if not arguments or not isinstance(arguments[0], Tensor):
        return None
    shape = arguments[0].shape
    if function in ANYWHERE:
        return tuple(shape)
    if function in INDEXED:
        return _indexed(shape, arguments[1])
    if function not in ALONG:
        return None
    position, name, default = ALONG[function]
    dims = keywords.get(name, arguments[position] if len(arguments) > position else default)
    if name == "dims" and len(arguments) > position + 1:  # x.flip(0, 1)
        dims = arguments[position:]
    if dims is ALL:
        return tuple(shape)
    try:
        return tuple(shape[d] for d in ((dims,) if isinstance(dims, int) else dims))
    except (TypeError, IndexError):
        return tuple(shape)


def plain_index(index: Any) -> bool:
    """Whether an index holds nothing but whole numbers, slices, None and Ellipsis."""
    parts = index if isinstance(index, tuple) else (index,)
    return all(p is None or p is ... or isinstance(p, int | slice) for p in parts) and not any(
        isinstance(p, bool) for p in parts
    )


def _indexed(shape: torch.Size, index: Any) -> tuple[int, ...]:
    """Return the lengths of the dimensions that an index does not take whole."""
    parts = list(index) if isinstance(index, tuple) else [index]
    if not all(isinstance(p, int | slice | Tensor) or p is None or p is ... for p in parts):
        return tuple(shape)  # lists, arrays: too many rules to repeat here
    if any(isinstance(p, bool) for p in parts):
        return tuple(shape)
    taken = sum(_dimensions(p) for p in parts)
    if taken > len(shape):
        return tuple(shape)
    lengths, at = [], 0
    for part in parts:
        if part is ...:
            at += len(shape) - taken
        elif part is not None:
            span = shape[at : at + _dimensions(part)]
            whole = isinstance(part, slice) and part.indices(span[0]) == (0, span[0], 1)
            lengths += [] if whole else span
            at += len(span)
    return tuple(lengths)


def _dimensions(part: Any) -> int:
    """Return how many dimensions one part of an index takes."""
    if part is None or part is ...:
        return 0
    return part.ndim if isinstance(part, Tensor) and part.dtype == torch.bool else 1
