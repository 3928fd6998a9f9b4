"""Reading the autograd graph: which parameters act on the loss through recorded calls alone.

The rules are exact only for a parameter all of whose influence on the loss passes through recorded
calls. The graph that autograd built is the authority on that. A recorded call was cut off from its
parameters (`recorder.py`): a parameter that the graph still reaches acts in some other way too. And
from the leaf that a call was given in its place, climbing along edges that have no sibling, one
must arrive at that call. Penalties on weights, functions without a rule and gradients computed
inside the forward pass break the climb or reach the parameter, and the exact fallback is taken.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from gradbench.errors import GradbenchError
from gradbench.gradients.recorder import Call, ParameterUse


@dataclass(frozen=True)
class Accounting:
    """The paths in the graph by which the requested parameters act on the loss."""

    uses: dict[ParameterUse, Call]  # through which parameters act that are accounted for
    unaccounted: list[Tensor]  # that act in any other way
    edges: list[Any]  # where the backward pass may stop, having passed every call of `uses`
    acting: frozenset[Tensor]  # as far as autograd saw it; the gradient of others is zero


def account(values: Tensor, calls: Iterable[Call], parameters: Iterable[Tensor]) -> Accounting:
    """Sort the parameters by how they act on the losses."""
    parents, leaves = _parents(values.grad_fn)
    unaccounted = {p for p in parameters if p in leaves}
    # A call whose layout is unknown is watched by no hook: climbing past it finds no call.
    at_node = {call.node: call for call in calls if call.layout is not None}
    uses = {}
    for call in calls:
        for use in call.uses:
            node, reached = leaves.get(use.leaf), None
            if node is None:
                continue
            while reached is None and len(parents[node]) == 1:
                node = parents[node][0]
                reached = at_node.get(node)
            expression = use.expression
            # One that was changed in place after the call is no longer what the call was given.
            if reached is call and expression.tensor._version == expression.version:
                uses[use] = call
            else:
                unaccounted |= expression.parameters
    acting = frozenset(unaccounted).union(*(use.expression.parameters for use in uses))
    uses = {u: c for u, c in uses.items() if not u.expression.parameters <= unaccounted}
    # Below the lowest recorded calls only gradients of the images would be computed.
    nodes = {call.node for call in uses.values()}
    lowest = nodes - _above(nodes, parents)
    edges = [at_node[node].edge for node in lowest]
    return Accounting(uses, [p for p in parameters if p in unaccounted], edges, acting)


def leaves_of(values: Tensor) -> frozenset[Tensor]:
    """Return the tensors that require a gradient and from which autograd saw these values made."""
    return frozenset(_parents(values.grad_fn)[1])


def nodes_of(values: Tensor) -> frozenset[Any]:
    """Return the nodes of the graph that autograd built for these values."""
    return frozenset(_parents(values.grad_fn)[0])


def _parents(root: Any) -> tuple[dict[Any, list[Any]], dict[Tensor, Any]]:
    """Return the parents of every node below root, one entry per edge, and the nodes of leaves."""
    parents: dict[Any, list[Any]] = {} if root is None else {root: []}
    leaves: dict[Tensor, Any] = {}
    stack = list(parents)
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
