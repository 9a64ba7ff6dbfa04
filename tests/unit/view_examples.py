"""A small graph and a small program for the printers; every kind of node, edge and box once."""

from __future__ import annotations

from dlavm.graph import Graph, parse_graph
from dlavm.target import load_target
from dlavm.task import Program, parse_program

SPEC = load_target("v3", "nano")

GRAPH = """graph small
var token in [1, 8]
var kv_len in [0, 31]
meta ctx = 32
input %x : f16[token, 32]
param %gamma : f16[32]
param %w0 : int4g128[32, 32]
param %w1 : int4g128[32, 32]
constant %rotary : f16[32, 32] = rotary(ctx=32, dim=32, theta=10000.0)
kv %cache : f16[1, 32, 32]
%n = rms_norm(%x, %gamma) {eps=1e-05} : f16[token, 32]
%l0.y = linear(%n, %w0, aux=%x) {act="silu", aux_mode="add"} : f16[token, 32] @ "layer 0 / proj"
%l1.y = linear(%l0.y, %w1, aux=%l0.y) {act="silu", aux_mode="add"} : f16[token, 32] @ "layer 1 / proj"
%h = reshape(%l1.y) {shape=[token, 1, 32]} : f16[token, 1, 32] @ "heads / deep / reshape"
%r = rope(%h, %rotary) {rotary_dim=32} : f16[token, 1, 32] @ "heads / rope"
%new = kv_append(%cache, %r) : f16[1, 32, 32] @ "heads / append"
output logits = %l1.y
output heads = %r
"""

TASKS = """program small(token: 1..8, kv_len: 0..31)
buffer ids: input 32 bytes i32[token]
buffer table: weights 4096 bytes f16[64, 32]
buffer x: activations 512 bytes f16[token, 32]
buffer y: activations 512 bytes f16[token, 32]
buffer w: weights 1024 bytes int4g128[32, 32] copies 4 every 2048
buffer cache: kv 2048 bytes f16[1, 32, 32]
buffer out: output 512 bytes f16[token, 32]
function finish:
  launch COPY src=@x src_so=4 dst=@out dst_so=4 rows_o=token rows_i=1 dim=32  # out
launch GATHER ids=@ids table=@table table_so=4 dst=@x dst_so=4 rows_o=token dim=32 limit=64  # embedding
for layer in 4:
  launch LINEAR format=int4g128:0 k=32 n=32 wgt=@w+128*layer src=@x dst=@y rows_o=token rows_i=1  # layer * / proj
  if lt(kv_len, 16):
    launch KV_APPEND src=@y src_so=4 rows_o=token rows_i=1 dim=32 cache=@cache pos=kv_len  # layer * / append
  launch ELTWISE fn=add src=@x src_so=4 b=@y b_so=4 dst=@x dst_so=4 rows_o=token rows_i=1 dim=32  # layer * / add
copy dst=@out src=@x bytes=64
call finish
"""


def small_graph() -> Graph:
    return parse_graph(GRAPH)


def small_program() -> Program:
    return parse_program(TASKS, SPEC)


ODD = "a\"b'c\\d<e>&f\n\x00\x1f\x7f é 日 \\N \\l {|} -> ; # // %s <<b>> ]"
