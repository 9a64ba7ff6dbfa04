"""What the graph of a model offers to a session: ids in, logits out, caches in between."""

from __future__ import annotations

import json
from collections.abc import Iterator

from dlavm.graph.ir import Graph, JsonValue, Type, Value
from dlavm.sym import wrap

IDS, LOGITS, NEXT = "ids", "logits", "next"
BOS, EOS = "bos_token_id", "eos_token_ids"


def interface_problems(graph: Graph, ctx: int, chunk: int) -> Iterator[str]:
    """All reasons why no session can drive a graph that was asked for with these sizes.

    Wanted are the one input `ids` i32 (token,), an output `logits` f16 (head_rows, vocab), if any `next` i32
    (head_rows,), which argmax made of it, a cache f16 (heads, ctx, dim) at least, and meta that JSON can hold.
    """
    sizes = graph.variables["kv_len"].hi + 1, graph.variables["token"].hi
    if sizes != (ctx, chunk):
        yield f"expected a graph for ctx {ctx} and chunk {chunk}, as build was asked for, got {sizes[0]} and {sizes[1]}"
    yield from _inputs(graph)
    yield from _outputs(graph)
    if not graph.kv or not any(node.op == "attention" for node in graph.nodes):
        yield f"expected a KV cache and an attention over it, got {len(graph.kv)} caches"
    for cache in graph.kv:
        if cache.type.rank != 3 or cache.type.shape[1] != wrap(sizes[0]):
            yield f"cache {cache.name}: expected (heads, {sizes[0]}, dim), got {cache.type}"
    yield from _meta(graph)


def _inputs(graph: Graph) -> Iterator[str]:
    expected = Type((graph.variables["token"],), "i32")
    ids = [value for value in graph.inputs if value.name == IDS and value.type == expected]
    if not ids or not any(node.op == "embedding" and node["ids"] == ids[0] for node in graph.nodes):
        found = ", ".join(f"{value.name} {value.type}" for value in graph.inputs) or "none"
        yield f"inputs: expected {IDS} {expected}, of which an embedding takes rows, got {found}"
    for value in graph.inputs:
        if value not in ids and graph.users.get(value.name):
            yield f"input {value.name}: expected {IDS} alone, which a session gives, got {_shown(value)}"


def _outputs(graph: Graph) -> Iterator[str]:
    rows, logits, following = graph.variables["head_rows"], graph.outputs.get(LOGITS), graph.outputs.get(NEXT)
    if logits is None:
        yield f"outputs: expected {LOGITS}, got {', '.join(graph.outputs) or 'none'}"
        return
    if logits.role != "activation" or logits.type.shape[:-1] != (rows,) or logits.type.dtype != "f16":
        yield f"output {LOGITS}: expected the result f16[{rows}, vocab] of an op, got {_shown(logits)}"
    if following is None:
        return
    maker = graph.producers.get(following.name)
    if maker is None or maker.op != "argmax" or maker["x"].name != logits.name:
        yield f"output {NEXT}: expected the argmax of {LOGITS}, got {_shown(following)}"


def _shown(value: Value) -> str:
    return f"{value.role} {value.name} {value.type}"


def _meta(graph: Graph) -> Iterator[str]:
    unnamed = [key for key in graph.meta if type(key) is not str]
    if unnamed:
        yield f"meta: expected names, got {unnamed[0]!r}"
    for key, value in graph.meta.items():
        try:
            json.dumps(value, allow_nan=False, sort_keys=True)
        except (TypeError, ValueError):
            yield f"meta {key}: expected a value of JSON, got {value!r}"
    ends = graph.meta.get(EOS)
    tokens = [*(ends if isinstance(ends, list) else [ends]), graph.meta.get(BOS)]
    logits = graph.outputs.get(LOGITS)
    vocab = logits.type.shape[-1].hi if logits is not None else 0
    for token in tokens:
        if token is not None and not (_is_int(token) and 0 <= int(str(token)) < max(1, vocab)):
            yield f"meta: {EOS} and {BOS}: expected ids in 0..{vocab - 1}, got {token!r}"


def _is_int(value: JsonValue) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
