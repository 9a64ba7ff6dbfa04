"""What passes share: new graphs from old ones. Graphs and nodes are frozen; these return copies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from dlavm.graph import Graph, Node, Value
from dlavm.graph.ir import AttrValue

Made = Node | Value | None


def with_operands(node: Node, replacements: Mapping[str, Value]) -> Node:
    """The node with operands replaced by name; itself when none is."""
    if not any(value.name in replacements for value in node.inputs):
        return node
    operands = tuple((name, replacements.get(value.name, value)) for name, value in node.operands)
    return replace(node, operands=operands)


def with_changes(node: Node, operands: Mapping[str, Value] | None = None, **attrs: AttrValue) -> Node:
    """The node with these operands and attributes in place of its own."""
    pairs = tuple((name, (operands or {}).get(name, value)) for name, value in node.operands)
    return replace(node, operands=pairs, attrs={**node.attrs, **attrs})


def replace_values(graph: Graph, replacements: Mapping[str, Value]) -> Graph:
    """The graph with every use of a value, by name, replaced; declarations stay."""
    return replace(
        graph,
        nodes=tuple(with_operands(node, replacements) for node in graph.nodes),
        outputs={label: replacements.get(value.name, value) for label, value in graph.outputs.items()},
    )


def fresh_name(wanted: str, taken: set[str]) -> str:
    """`wanted`, with a number behind it where it is taken; it is taken afterwards."""
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted}_{number}"
    taken.add(name)
    return name


@dataclass(frozen=True)
class Rule:
    """A pattern and what stands for it. The pattern is a chain of ops: that of the node, then that of what makes its
    first operand, and so on; `make` gets those nodes. It returns a node with the same output, an earlier value of
    the same type that is equal to it, or None where the rule does not apply."""

    chain: tuple[str, ...]
    make: Callable[..., Made]


def rule(*chain: str) -> Callable[[Callable[..., Made]], Rule]:
    """Makes a rule of the decorated function."""

    def made_of(make: Callable[..., Made]) -> Rule:
        return Rule(chain, make)

    return made_of


def rewrite(graph: Graph, rules: Sequence[Rule]) -> Graph:
    """The graph after every rule at every node, until none applies.

    One way through the nodes is enough: rules look only at what comes before a node, which is final by then. Nodes
    that nobody reads any more stay, for `Dce`.
    """
    by_op: dict[str, list[Rule]] = {}
    for one in rules:
        by_op.setdefault(one.chain[0], []).append(one)
    nodes: dict[str, Node] = {}  # by name, in order
    equal: dict[str, Value] = {}  # replaced values
    for node in graph.nodes:
        made: Made = with_operands(node, equal)
        while isinstance(made, Node):
            nodes[node.name] = made
            made = _step(graph, made, nodes, by_op.get(made.op, ()))
        if made is not None:
            equal[node.name] = made
            del nodes[node.name]
    return replace_values(replace(graph, nodes=tuple(nodes.values())), equal)


def _step(graph: Graph, node: Node, nodes: Mapping[str, Node], rules: Sequence[Rule]) -> Made:
    """What the first rule that applies makes of the node."""
    for one in rules:
        chain = _matched(one.chain, node, nodes)
        made = one.make(*chain) if chain else None
        if made is not None and _is_allowed(graph, node, made):
            return made
    return None


def _matched(ops: Sequence[str], node: Node, nodes: Mapping[str, Node]) -> list[Node]:
    """The nodes of a pattern's chain; empty where it does not fit."""
    chain = [node]
    for op in ops[1:]:
        before = nodes.get(chain[-1].inputs[0].name)
        if before is None or before.op != op:
            return []
        chain.append(before)
    return chain


def _is_allowed(graph: Graph, node: Node, made: Node | Value) -> bool:
    """Caches are read where they were, since an append ends their old value; only activations are outputs."""
    if isinstance(made, Value):
        return made.role == "activation" or (made.role != "kv" and not graph.is_output(node.output))
    return all(value.role != "kv" or value in node.inputs for value in made.inputs)
