"""Finds operations that reorder the images of a batch: routing, sorting, slices of the batch.

The batch-consistency check sees the first and the last image alone. Were others reordered, or
mixed, between a layer's rows it would not notice. So functions that pick or reorder elements are
recorded with the lengths of the dimensions that they work along: a length that differs between one
image and a batch belongs to the images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gradbench.gradients.rules.broadcast import functions_named

# function or method -> position, keyword and default of its dimension; None is all of them
ALONG: dict[Callable, tuple[int, str, int | None]] = {
    function: (position, keyword, default)
    for position, keyword, default, names in (
        (1, "dim", -1, ("sort", "argsort")),
        (2, "dim", -1, ("topk", "kthvalue")),
        (1, "dim", 0, ("unbind", "select", "narrow", "index_select", "gather")),
        (1, "dim", 0, ("index_add", "index_copy", "index_fill", "scatter")),
        (1, "dim", 0, ("scatter_add", "scatter_reduce", "scatter_add_", "scatter_reduce_")),
        (1, "dim", 0, ("index_add_", "index_copy_", "index_fill_", "scatter_")),
        (2, "dim", 0, ("split", "chunk", "tensor_split", "split_with_sizes")),
        (2, "dim", None, ("take_along_dim",)),
        (2, "dims", None, ("roll",)),
        (1, "dims", None, ("flip",)),
    )
    for function in functions_named(*names)
}
# functions that may take any element anywhere
ANYWHERE = frozenset(
    functions_named(
        *("take", "masked_select", "masked_scatter", "masked_scatter_", "nonzero", "unique", "put"),
        *("put_", "index_put", "index_put_", "rot90", "argwhere", "fliplr", "flipud"),
        "unravel_index",
    )
)
INDEXED = frozenset([Tensor.__getitem__, Tensor.__setitem__])


def reordered_lengths(
    function: Callable, arguments: Sequence[Any], keywords: Mapping[str, Any]
) -> tuple[int, ...] | None:
    """Return the lengths of the dimensions along which a call picks or reorders; None if none.

    Where that is not certain, all of them: then the images count as reordered.
    """
    if not arguments or not isinstance(arguments[0], Tensor):
        return None
    shape = arguments[0].shape
    if function in ANYWHERE:
        return tuple(shape)
    if function in INDEXED:
        return _indexed_lengths(shape, arguments[1])
    if function not in ALONG:
        return None
    position, keyword, default = ALONG[function]
    dims = keywords.get(keyword, arguments[position] if len(arguments) > position else default)
    if keyword == "dims" and len(arguments) > position + 1:  # x.flip(0, 1)
        dims = arguments[position:]
    try:
        return tuple(shape[d] for d in ((dims,) if isinstance(dims, int) else dims))
    except (TypeError, IndexError):
        return tuple(shape)


def plain_index(index: Any) -> bool:
    """Whether an index holds nothing but whole numbers, slices, None and Ellipsis."""
    parts = index if isinstance(index, tuple) else (index,)
    return all(
        p is None or p is ... or (isinstance(p, int | slice) and not isinstance(p, bool))
        for p in parts
    )


def _indexed_lengths(shape: torch.Size, index: Any) -> tuple[int, ...]:
    """Return the lengths of the dimensions that an index does not take whole."""
    parts = index if isinstance(index, tuple) else (index,)
    if not plain_index(tuple(p for p in parts if not isinstance(p, Tensor))):
        return tuple(shape)  # lists, arrays: too many rules to repeat here
    dimensions = [
        0 if p is None or p is ... else p.ndim if getattr(p, "dtype", None) == torch.bool else 1
        for p in parts
    ]
    if sum(dimensions) > len(shape):
        return tuple(shape)
    lengths, at = [], 0
    for part, count in zip(parts, dimensions):
        span = shape[at : at + count]
        whole = isinstance(part, slice) and part.indices(span[0]) == (0, span[0], 1)
        lengths += [] if whole else span
        at += len(shape) - sum(dimensions) if part is ... else count
    return tuple(lengths)
