"""Fusing what follows a linear layer into the epilogue of the matrix engine."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dlavm.graph import Graph, Node, Value
from dlavm.graph.ir import AttrValue


@dataclass(frozen=True)
class FuseEpilogue:
    """Absorbs a linear's only user into it, again and again, as long as the epilogue's order allows:
    scale, bias, act, then one aux (multiplied or added). Rounding to fp16 in between disappears.

    The fused node stands where the last absorbed one stood, so that an aux defined after the linear is defined
    before the fused node; it keeps the linear's place and the last one's output.
    """

    name: str = "fuse_epilogue"

    def __call__(self, graph: Graph) -> Graph:
        fused: dict[str, Node] = {}  # by the name of the last absorbed node
        gone: set[str] = set()
        for linear in graph.nodes:
            if linear.op != "linear":
                continue
            node = linear
            while (user := _only_user(graph, node.output)) and user.name not in fused and user.name not in gone:
                absorbed = _absorb(node, user)
                if absorbed is None:
                    break
                gone.add(node.name)
                node = absorbed
            if node is not linear:
                fused[node.name] = node
        nodes = (fused.get(node.name, node) for node in graph.nodes if node.name not in gone)
        return replace(graph, nodes=tuple(nodes))


def _only_user(graph: Graph, value: Value) -> Node | None:
    users = graph.users.get(value.name, ())
    return users[0] if len(users) == 1 and not graph.is_output(value) else None


def _absorb(linear: Node, user: Node) -> Node | None:
    """The linear that also does what `user` does, None where the epilogue cannot."""
    has_bias, has_act = linear.get("bias") is not None, linear.attrs["act"] != "none"
    if linear.get("aux") is not None:
        return None
    if user.op == "scale" and not has_bias and not has_act and linear.attrs["scale"] == 1.0:
        return _extended(linear, user, scale=user.attrs["value"])
    if user.op == "act" and not has_act:
        return _extended(linear, user, act=user.attrs["fn"])
    if user.op not in ("add", "mul"):
        return None
    other = next(value for value in user.inputs if value.name != linear.name)
    if other.type.shape == linear.output.type.shape:
        return _extended(linear, user, ("aux", other), aux_mode=user.op)
    if user.op == "add" and other.role in ("param", "constant") and not has_bias and not has_act:
        return _extended(linear, user, ("bias", other))
    return None


def _extended(linear: Node, user: Node, *operands: tuple[str, Value], **attrs: AttrValue) -> Node:
    return replace(
        linear,
        operands=(*linear.operands, *operands),
        attrs={**linear.attrs, **attrs},
        outputs=user.outputs,
    )
