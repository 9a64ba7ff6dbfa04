"""Cycle budget of Llama-2-7B on the vcu128: one decode token and a prefill. Prints the tables of doc/budget.md.

python scripts/budget.py

A budget, not a simulation: it says what must be overlapped for the bars to be met, before anything is built. Units are
core cycles (225 MHz) and bytes unless a name says otherwise.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import ceil

CLOCK_HZ = 225e6
BYTES_PER_CYCLE = 2048  # 32 pseudo channels x 512 bit = 460.8 GB/s
WEIGHTS_PER_CYCLE = 4096
TOKENS_PER_WEIGHT = 2
KV_PER_CYCLE = 1024  # fp16 values that a cycle's bytes hold
ROW_TILE = 512
WEIGHT_BYTES = 4.125 / 8  # INT4 and an fp16 scale per 128
VECTOR_LANES = 128

# Llama-2-7B
LAYERS, HIDDEN, FFN, HEADS, HEAD_DIM, VOCAB = 32, 4096, 11008, 32, 128, 32000

ADD_LATENCY = 4
READ_LATENCY, WRITE_LATENCY, PIPELINE, SEMAPHORE, QUANTISE = 60, 40, 40, 4, 7
EDGE = PIPELINE + WRITE_LATENCY + SEMAPHORE + READ_LATENCY + QUANTISE  # result of one op -> first operand of the next
FETCH = 25  # cycles a command
TURNAROUND = 8  # read -> write -> read on the memory bus, once a store
STORES = 11  # a layer: q, k, v, rope x 2, scores, softmax, pv, o, up, down

# What refresh and the controller take from the peak. HBM2: tREFI 3.9 us, tRFC 260 ns (JESD235, 4-8 Gbit a channel).
# Refreshed bank by bank, just behind the stream, it hides. 425 GB/s: Shuhai on a U280 (Wang et al., FCCM 2020).
REFRESH = {
    "hidden (per bank)": 0.01,
    "all banks, 260 ns / 3.9 us": 0.26 / 3.9,
    "measured, 425 of 460.8 GB/s": 1 - 425 / 460.8,
}
BUFFERS = {"none": 0, "256 KiB": 256 << 10, "1 MiB": 1 << 20, "8 MiB": 8 << 20}


@dataclass(frozen=True)
class Stream:
    """Something the matrix engine eats from memory after a gap in which it waits for its operand."""

    name: str
    useful_bytes: float
    read_bytes: float
    compute: float  # cycles if the bytes were always there
    gap: float = 0.0


def linear(name: str, n: int, k: int, gap: float = 0.0) -> Stream:
    """A weight matrix (n, k); rows are padded to whole tiles. The engine takes scales and weights through one port."""
    read = ceil(n / ROW_TILE) * ROW_TILE * k * WEIGHT_BYTES
    return Stream(name, n * k * WEIGHT_BYTES, read, read / BYTES_PER_CYCLE, gap)


def cache(name: str, tokens: int, gap: float) -> Stream:
    """All keys or all values of a layer."""
    values = tokens * HIDDEN
    return Stream(name, 2.0 * values, 2.0 * values, values / KV_PER_CYCLE, gap)


def norm_cycles(rows: int = 1) -> float:
    """RMS norm of HIDDEN elements a row. The adds of a lane depend on each other: one row alone waits for each."""
    per_lane = HIDDEN // VECTOR_LANES
    if rows >= ADD_LATENCY:
        return 2 * per_lane * rows
    return per_lane * ADD_LATENCY + 7 * ADD_LATENCY + 12 + per_lane + 20


def softmax_cycles(tokens: int, heads: int = HEADS) -> float:
    """Three passes over the scores of `heads` heads, and what the last one's sum tree and reciprocal take."""
    steps = ceil(tokens / VECTOR_LANES)
    return 3 * steps * heads + steps * (ADD_LATENCY - 1) + 7 * ADD_LATENCY + 40


def layer(depth: int, head_pipelined: bool, merged: bool) -> list[Stream]:
    """What a decode step streams for one layer, with the gap before each.

    head_pipelined: softmax of a head runs under the keys of the next. merged: gate and up are one matrix (no padding).
    """
    norm = EDGE + norm_cycles() + EDGE
    rope = EDGE + 2 * HIDDEN / VECTOR_LANES + 20 + EDGE
    softmax = EDGE + softmax_cycles(depth, 1 if head_pipelined else HEADS) + EDGE
    gate_up = [linear("gate, up", 2 * FFN, HIDDEN, norm)]
    if not merged:
        gate_up = [linear("gate", FFN, HIDDEN, norm), linear("up", FFN, HIDDEN)]
    return [
        linear("q, k, v", 3 * HIDDEN, HIDDEN, norm),
        cache("keys", depth, rope),
        cache("values", depth, softmax),
        linear("o", HIDDEN, HIDDEN, EDGE),
        *gate_up,
        linear("down", HIDDEN, FFN, EDGE),
    ]


def decode_streams(depth: int, head_pipelined: bool = True, merged: bool = False) -> list[Stream]:
    """A whole decode step."""
    head = linear("head", VOCAB, HIDDEN, EDGE + norm_cycles() + EDGE)
    return [*(s for _ in range(LAYERS) for s in layer(depth, head_pipelined, merged)), head]


def run(streams: Iterable[Stream], refresh: float, buffer: float) -> float:
    """Cycles of a step. Memory runs ahead into the buffer during gaps; the engine drains it as fast as it can compute.

    A fluid model: memory brings `rate` bytes a cycle whenever the buffer has room.
    """
    rate = BYTES_PER_CYCLE * (1 - refresh)
    cycles, held = 0.0, 0.0
    for stream in streams:
        cycles += stream.gap
        held = min(buffer, held + rate * stream.gap)
        overhead = STORES / 7 * TURNAROUND * BYTES_PER_CYCLE  # the bus is not free while it turns round
        needed = stream.read_bytes + overhead
        busy = max(stream.compute, (needed - held) / rate)
        cycles += busy
        held = min(buffer, max(0.0, held + rate * busy - needed))
    return cycles


def table(head: list[str], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows])


def k(cycles: float) -> str:
    """Cycles in thousands."""
    return f"{cycles / 1000:,.1f}"


def decode_items(depth: int) -> str:
    """The items of one decode token."""
    streams = decode_streams(depth)
    useful = sum(s.useful_bytes for s in streams) / BYTES_PER_CYCLE
    total = useful / 0.88
    kv = sum(s.useful_bytes for s in streams if s.name in ("keys", "values")) / BYTES_PER_CYCLE
    padding = sum(s.read_bytes for s in streams) / BYTES_PER_CYCLE - useful
    gaps = sum(s.gap for s in streams)
    serial = sum(s.gap for s in decode_streams(depth, head_pipelined=False)) - gaps
    ops = LAYERS * 16 + 4
    per_head = LAYERS * (13 + 3 * HEADS) + 4
    turn = LAYERS * STORES * TURNAROUND
    rows = [
        ("weights, useful", k(useful - kv), "the floor"),
        (f"KV cache, useful, depth {depth}", k(kv), "the floor"),
        (
            "row padding: gate, up 21.5 -> 22 tiles, head 62.5 -> 63",
            k(padding),
            "one matrix for gate and up: 43 whole tiles",
        ),
        *((f"refresh: {name}", k(useful / (1 - f) - useful), "per-bank refresh") for name, f in REFRESH.items()),
        (f"bus turnarounds, {STORES} stores a layer", k(turn), "store late, together"),
        ("gaps between dependent ops, softmax pipelined by head", k(gaps), "prefetch buffer"),
        ("more, if softmax waits for all heads", k(serial), "semaphore a head"),
        (f"command fetch, {ops} ops x {FETCH}", k(ops * FETCH), "command queue an engine"),
        (f"command fetch, an op a head: {per_head:,} ops", k(per_head * FETCH), "heads as a field of the op"),
    ]
    cells = [(n, v, f"{100 * float(v.replace(',', '')) * 1000 / total:.2f} %", remedy) for n, v, remedy in rows]
    return table(["item", "k cycles", "of the step at the bar", "what removes it"], cells)


def decode_results(depth: int) -> str:
    """tok/s and share of the peak by refresh and buffer."""
    rows = []
    for merged in (False, True):
        streams = decode_streams(depth, merged=merged)
        useful = sum(s.useful_bytes for s in streams)
        for name, refresh in REFRESH.items():
            cells = []
            for buffer in BUFFERS.values():
                cycles = run(streams, refresh, buffer)
                cells.append(f"{CLOCK_HZ / cycles:.1f} ({100 * useful / cycles / BYTES_PER_CYCLE:.1f} %)")
            rows.append((f"{name}{', gate+up merged' if merged else ''}", *cells))
    return table(["refresh", *(f"buffer {name}" for name in BUFFERS)], rows)


def gap_table(depth: int) -> str:
    """Which gap needs how much buffer to keep memory busy."""
    rows = [
        (f"before {s.name}", f"{s.gap:.0f}", f"{s.gap * BYTES_PER_CYCLE / 1024:,.0f}")
        for s in layer(depth, True, False)
        if s.gap
    ]
    serial = next(s for s in layer(depth, False, False) if s.name == "values")
    rows.append(
        ("before values, softmax of all heads", f"{serial.gap:.0f}", f"{serial.gap * BYTES_PER_CYCLE / 1024:,.0f}")
    )
    return table(["gap", "cycles", "KiB that hide it"], rows)


@dataclass(frozen=True)
class Prefill:
    """A way to run a prefill."""

    tokens: int = 512
    tile: int = 32  # tokens that share a weight fetch from memory
    kv_tokens: int = 4  # tokens that share a key or value on its way through the engine
    refresh: float = REFRESH["all banks, 260 ns / 3.9 us"]
    overlap: bool = True  # vector work of one token tile under matrix work of another

    def matrix(self) -> float:
        """Cycles of the linear layers (the head for the last token only)."""
        one = sum(s.compute for s in layer(1, True, False) if s.name not in ("keys", "values")) * LAYERS
        return one * self.tokens / TOKENS_PER_WEIGHT + linear("head", VOCAB, HIDDEN).compute

    def attention_reads(self) -> list[int]:
        """Tokens of the cache that each group of kv_tokens reads; blocks of 32."""
        return [ceil((t + self.kv_tokens) / 32) * 32 for t in range(0, self.tokens, self.kv_tokens)]

    def attention(self) -> float:
        """Cycles of scores and values."""
        return sum(self.attention_reads()) * 2 * HIDDEN / KV_PER_CYCLE * LAYERS

    def vector(self) -> float:
        """Cycles of norms, rope and softmax; activation and residual are in the epilogue."""
        softmax = sum(3 * ceil((t + 1) / VECTOR_LANES) * HEADS for t in range(self.tokens))
        rows = 2 * norm_cycles(self.tokens) + self.tokens * 2 * HIDDEN / VECTOR_LANES
        return (softmax + rows) * LAYERS

    def memory(self) -> float:
        """Cycles of memory traffic: weights once a token tile, keys and values once a group."""
        weights = sum(s.read_bytes for s in layer(1, True, False) if s.name not in ("keys", "values")) * LAYERS
        kv = sum(self.attention_reads()) * 2 * 2 * HIDDEN * LAYERS
        return (weights * self.tokens / self.tile + kv) / BYTES_PER_CYCLE / (1 - self.refresh)

    def edges(self) -> float:
        """Waiting between dependent ops of a token tile."""
        return sum(s.gap for s in layer(1, True, False)) * LAYERS * (1 if self.overlap else self.tokens / self.tile)

    def cycles(self) -> float:
        """The whole prefill."""
        compute = self.matrix() + self.attention() + self.edges() + (0 if self.overlap else self.vector())
        return max(compute, self.memory())

    def row(self, name: str) -> list[str]:
        """A line of the table."""
        weights = LAYERS * (4 * HIDDEN * HIDDEN + 3 * HIDDEN * FFN)
        lanes = weights * self.tokens / (WEIGHTS_PER_CYCLE * TOKENS_PER_WEIGHT * self.cycles())
        parts = [self.matrix(), self.attention(), self.vector(), self.edges(), self.memory(), self.cycles()]
        rate = self.tokens * CLOCK_HZ / self.cycles()
        return [name, *(f"{p / 1e6:,.1f}" for p in parts), f"{rate:.1f}", f"{100 * lanes:.1f} %"]


def prefill_results() -> str:
    """Prefill of 512 tokens in several ways."""
    base = Prefill()
    ways = {
        "tile 32, 4 tokens a KV value, vector overlapped": base,
        "2 tokens a KV value": replace(base, kv_tokens=2),
        "1 token a KV value": replace(base, kv_tokens=1),
        "vector not overlapped": replace(base, overlap=False),
        "1 token a KV value, vector not overlapped": replace(base, kv_tokens=1, overlap=False),
        "tile 4": replace(base, tile=4),
        "tile 2: every weight from memory for every pair": replace(base, tile=2),
    }
    head = ["way", "linear", "attention", "vector", "edges", "memory", "total, M cycles", "tok/s", "lanes"]
    return table(head, [way.row(name) for name, way in ways.items()])


def report(depth: int = 1024) -> dict[str, str]:
    """All tables by title."""
    return {
        "Decode: items": decode_items(depth),
        "Decode: gaps": gap_table(depth),
        "Decode: results": decode_results(depth),
        "Prefill": prefill_results(),
    }


if __name__ == "__main__":
    sys.stdout.write("\n\n".join(f"{title}\n\n{text}" for title, text in report().items()) + "\n")
