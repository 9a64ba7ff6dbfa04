"""Questions about a whole graph, asked of its networkx form: what depends on what, how deep, what repeats."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import networkx as nx

from dlavm.graph.ir import Graph, Node
from dlavm.graph.ops import OPS

SCOPE = " / "  # between the parts of a node's place in the model
_END = ""  # no value has this name: before all inputs, behind all outputs


@dataclass(frozen=True)
class Layer:
    """Nodes of one outermost scope. `like`: the first scope whose nodes are the same but for names, empty if none."""

    scope: str
    nodes: tuple[Node, ...]
    like: str = ""


def flow(graph: Graph) -> nx.DiGraph:
    """Every value by name, with an edge from each operand of a node to each of its outputs."""
    found = nx.DiGraph()
    found.add_nodes_from(graph.values)
    for node in graph.nodes:
        found.add_edges_from((value.name, output.name) for value in node.inputs for output in node.outputs)
    return found


def depths(graph: Graph) -> dict[str, int]:
    """For each value, the nodes on the longest way to it; sources have 0."""
    generations = nx.topological_generations(flow(graph))
    return {name: depth for depth, names in enumerate(generations) for name in names}


def dominators(graph: Graph) -> dict[str, str]:
    """For each value that depends on an input, the last one that every way from the inputs to it passes; values
    without such a one are absent."""
    return _dominators(flow(graph), [value.name for value in graph.inputs])


def post_dominators(graph: Graph) -> dict[str, str]:
    """For each value that an output depends on, the first one that every way from it to the outputs passes; values
    without such a one are absent."""
    return _dominators(flow(graph).reverse(copy=False), {value.name for value in graph.outputs.values()})


def _dominators(ways: nx.DiGraph, ends: Iterable[str]) -> dict[str, str]:
    ways = nx.DiGraph(ways)
    ways.add_edges_from((_END, end) for end in ends)
    if _END not in ways:
        return {}
    found = nx.immediate_dominators(ways, _END)
    return {name: before for name, before in found.items() if before and name != _END}


def chain(tree: Mapping[str, str], value: str) -> list[str]:
    """The values that dominate `value`, itself first; `tree` is what `dominators` or `post_dominators` returns."""
    found = [value]
    while found[-1] in tree:
        found.append(tree[found[-1]])
    return found


def trunk(graph: Graph) -> list[str]:
    """The values that everything on the way from the inputs to the first output passes through, in order: in a
    transformer the residual stream."""
    first = next(iter(graph.outputs.values()), None)
    return chain(dominators(graph), first.name)[::-1] if first is not None else []


def components(graph: Graph) -> list[frozenset[str]]:
    """The values by what they are connected with in any direction, in the order of their first values."""
    groups = map(frozenset, nx.weakly_connected_components(flow(graph)))
    found = {name: names for names in groups for name in names}
    return list(dict.fromkeys(found[name] for name in graph.values))


def unused(graph: Graph) -> list[str]:
    """The values that neither an output nor a change of state depends on, in the order of the graph."""
    effects = (node.name for node in graph.nodes if OPS[node.op].effect)
    ways, needed = flow(graph), {value.name for value in graph.outputs.values()} | set(effects)
    waiting = [name for name in needed if name in ways]
    while waiting:
        before = set(ways.predecessors(waiting.pop())) - needed
        needed |= before
        waiting += before
    return [name for name in graph.values if name not in needed]


def scope_of(node: Node) -> tuple[str, ...]:
    """The scopes around a node, outermost first."""
    return tuple(node.where.split(SCOPE)[:-1])


def layers(graph: Graph) -> list[Layer]:
    """The outermost scopes in order of their first nodes."""
    groups: dict[str, list[Node]] = {}
    for node in graph.nodes:
        if around := scope_of(node):
            groups.setdefault(around[0], []).append(node)
    firsts: dict[object, str] = {}
    found = []
    for scope, nodes in groups.items():
        first = firsts.setdefault(_shape(nodes), scope)
        found.append(Layer(scope, tuple(nodes), first if first != scope else ""))
    return found


def _shape(nodes: Iterable[Node]) -> object:
    """What nodes are but for names: values are numbered in the order of their occurrence. The first layer may read an
    input where the others read what a layer before them made."""
    numbers: dict[str, int] = {}
    rows = []
    for node in nodes:
        operands = [(name, numbers.setdefault(v.name, len(numbers)), v.type, v.role.replace("input", "activation"))
                    for name, v in node.operands]  # fmt: skip
        outputs = [(numbers.setdefault(v.name, len(numbers)), v.type) for v in node.outputs]
        rows.append((node.op, tuple(operands), tuple(node.attrs.items()), tuple(outputs)))
    return tuple(rows)
