"""Reading the autograd graph: which parameters act on the loss through one noted call alone.

The rules are exact only for a parameter all of whose influence on the loss passes through one known
call. The graph that autograd built is the authority on that: climbing from the parameter along
edges that have no sibling, one must arrive at the noted call. Tied weights, penalties on weights,
layers used twice and functions without a rule all break the climb, and the exact fallback is taken.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from gradbench.errors import GradbenchError
from gradbench.gradients.recorder import Call


@dataclass(frozen=True)
class Ownership:
    """What the graph says about the asked parameters.

    Args:
        owned: parameter -> the one call through which it acts on the loss.
        shared: parameters that act on the loss in any other way.
        edges: where the backward pass may stop, so that it passes every call of `owned`.
        leaves: all tensors that act on the loss, as far as autograd saw it.
    """

    owned: dict[Tensor, Call]
    shared: list[Tensor]
    edges: list[Any]
    leaves: frozenset[Tensor]


def ownership(values: Tensor, calls: Iterable[Call], parameters: Iterable[Tensor]) -> Ownership:
    """Sort the parameters by how they act on the loss.

    Args:
        values: the losses.
        calls: the noted calls that may be used.
        parameters: the asked parameters.

    Raises:
        GradbenchError: when part of the graph is hidden by re-entrant checkpointing.
    """
    parents, leaves = _parents(values.grad_fn)
    at_node = {call.node: call for call in calls}
    owned, shared = {}, []
    for parameter in parameters:
        leaf = leaves.get(parameter)
        if leaf is None:
            continue
        node, call = leaf, None
        while call is None and len(parents[node]) == 1:
            node = parents[node][0]
            call = at_node.get(node)
        if call is not None and parameter in call.roles:
            owned[parameter] = call
        else:
            shared.append(parameter)
    used = {call.node for call in owned.values()}
    lowest = used - _above(used, parents)
    return Ownership(owned, shared, [at_node[node].edge for node in lowest], frozenset(leaves))


def leaves_of(values: Tensor) -> frozenset[Tensor]:
    """Return the tensors that require a gradient and from which autograd saw these values made.

    Raises:
        GradbenchError: as `ownership`.
    """
    return frozenset(_parents(values.grad_fn)[1])


def nodes_of(values: Tensor) -> frozenset[Any]:
    """Return the nodes of the graph that autograd built for these values."""
    return frozenset(_parents(values.grad_fn)[0])


def _parents(root: Any) -> tuple[dict[Any, list[Any]], dict[Tensor, Any]]:
    """Return the parents of every node below root, one entry per edge, and the nodes of leaves."""
    parents: dict[Any, list[Any]] = {}
    leaves: dict[Tensor, Any] = {}
    stack = [] if root is None else [root]
    parents.update((node, []) for node in stack)
    while stack:
        node = stack.pop()
        kind = type(node).__name__
        if kind == "AccumulateGrad":
            leaves[node.variable] = node
        elif kind == "CheckpointFunctionBackward":
            raise GradbenchError(
                "re-entrant checkpointing hides parameters: pass use_reentrant=False to checkpoint"
            )
        for child, _ in node.next_functions:
            if child is None:
                continue
            if child not in parents:
                parents[child] = []
                stack.append(child)
            parents[child].append(node)
    return parents, leaves


def _above(nodes: Iterable[Any], parents: dict[Any, list[Any]]) -> set[Any]:
    """Return every node with one of these nodes below it."""
    above: set[Any] = set()
    stack = [parent for node in nodes for parent in parents[node]]
    while stack:
        node = stack.pop()
        if node not in above:
            above.add(node)
            stack.extend(parents[node])
    return above
