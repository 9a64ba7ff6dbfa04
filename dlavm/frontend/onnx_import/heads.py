"""Rotations and attentions, read off the numbers: which columns turn into which by what angles, what rows see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dlavm.frontend.onnx_import.arithmetic import HIDDEN
from dlavm.frontend.onnx_import.flow import Atom, NotRecognised, Part, Rows
from dlavm.frontend.onnx_import.ir import Array
from dlavm.frontend.onnx_import.products import Cached
from dlavm.frontend.onnx_import.trace import Trace
from dlavm.graph.attention import alibi_slopes

ALIBI = 8.0
SAME = 1e-6  # of coefficients that are the same number


@dataclass(frozen=True, eq=False)
class Rotation:
    """Of heads of `size` columns the first 2 * pairs: `cos` and `sin` (positions, pairs) from position `first` on."""

    size: int
    interleaved: bool
    cos: Array
    sin: Array
    first: int

    @property
    def pairs(self) -> int:
        return int(self.cos.shape[1])


def rotation_of(rows: Rows) -> tuple[Rows, Rotation] | None:
    """What is rotated, with its columns in the order of the result, and how; None where rows are no sum of several.

    Raises NotRecognised for sums that are no rotation.
    """
    if len(rows.parts) < 2:
        return None
    if len({p.atom.index for p in rows.parts}) != 1 or rows.bias is not None:
        raise NotRecognised("expected a sum of two values, or a rotation of pairs of one")
    atom = rows.parts[0].atom
    sources, factors = _sources(rows)
    turned = sources[1] >= 0
    main, partner = _paired(sources, factors, turned)
    cos = np.where(turned, _factor(sources, factors, main), 1.0)
    if np.abs(_factor(sources, factors, main)[:, ~turned] - 1).max(initial=0) > SAME:
        raise NotRecognised("expected columns that do not turn to stay as they are")
    sin = np.where(turned, _factor(sources, factors, main[partner]), 0.0)
    size, interleaved, pairs = _layout(turned, partner, cos)
    first = np.arange(pairs) * (2 if interleaved else 1)
    second = partner[first]
    rotation = Rotation(size, interleaved, cos[:, first], sin[:, second], rows.first)
    _check_heads(rotation, turned, partner, cos, sin)
    operand = replace(rows, parts=(Part(atom, main),), gain=1.0)
    return operand, rotation


def _sources(rows: Rows) -> tuple[Array, Array]:
    """Columns (2, columns) of the atom, -1 for none, and their coefficients (2, positions, columns)."""
    count = len(rows.parts)
    columns = np.stack([p.columns for p in rows.parts])
    factors = np.stack([np.broadcast_to(1.0 if p.coefficient is None else p.coefficient, (rows.count, rows.columns))
                        for p in rows.parts]) * rows.gain  # fmt: skip
    columns = np.where((factors == 0).all(axis=1), -1, columns)
    order = np.argsort(columns < 0, axis=0, kind="stable")
    columns, factors = np.take_along_axis(columns, order, 0), np.take_along_axis(factors, order[:, None], 0)
    if count > 2 and (columns[2:] >= 0).any() or (columns[0] < 0).any():
        raise NotRecognised("expected a rotation of pairs, got sums of more, or of nothing")
    return columns[:2], np.where(columns[:2, None] < 0, 0.0, factors[:2])


def _factor(sources: Array, factors: Array, column: Array) -> Array:
    """The coefficient (positions, columns) of a given column of the atom in each column of the result."""
    return np.where(sources[0] == column, factors[0], 0.0) + np.where(sources[1] == column, factors[1], 0.0)


def _paired(sources: Array, factors: Array, turned: Array) -> tuple[Array, Array]:
    """For each column of the result that of the atom that it stays at angle 0, and the other column of its pair."""
    main, partner = sources[0].copy(), np.arange(sources.shape[1])
    members = np.flatnonzero(turned)
    low, high = np.sort(sources[:, members], axis=0)
    order = np.lexsort((members, high, low))
    members, low, high = members[order], low[order], high[order]
    a, b = members[::2], members[1::2]  # the two columns of the result of each pair of the operand
    same = len(a) == len(b) and (low[::2] == low[1::2]).all() and (high[::2] == high[1::2]).all()
    if not same or len({*zip(low[::2].tolist(), high[::2].tolist(), strict=True)}) != len(a):
        raise NotRecognised("expected two columns of the result for two of its operand")
    low, high = low[::2], high[::2]

    def turns(mine: Array, other: Array) -> Array:
        """Whether a keeps `mine` and b `other` at angle 0: (pairs,)."""
        cos = _part(sources, factors, a, mine) - _part(sources, factors, b, other)
        sin = _part(sources, factors, a, other) + _part(sources, factors, b, mine)
        return np.maximum(np.abs(cos), np.abs(sin)).max(axis=0, initial=0) <= SAME

    straight, crossed = turns(low, high), turns(high, low)
    if not (straight | crossed).all():
        raise NotRecognised("expected pairs that turn by an angle")
    main[a], main[b] = np.where(straight, low, high), np.where(straight, high, low)
    partner[a], partner[b] = b, a
    return main, partner


def _part(sources: Array, factors: Array, members: Array, column: Array) -> Array:
    """The coefficient (positions, members) of a column of the atom in each of some columns of the result."""
    return _factor(sources[:, members], factors[:, :, members], column)


def _layout(turned: Array, partner: Array, cos: Array) -> tuple[int, bool, int]:
    """Columns of a head, whether neighbours are pairs, and the pairs of a head."""
    count = len(turned)
    interleaved = bool(turned[:2].all() and partner[0] == 1)
    for size in (n for n in range(2, count + 1) if count % n == 0):
        heads = np.arange(count).reshape(-1, size)
        inside = (partner[heads] // size == heads // size).all()
        alike = (turned[heads] == turned[:size]).all() and np.abs(cos[:, heads] - cos[:, None, :size]).max() <= SAME
        if inside and alike and ((partner[heads] - heads[:, :1]) == partner[:size]).all():
            pairs = int(turned[:size].sum()) // 2
            if pairs and turned[: 2 * pairs].all():
                return size, interleaved, pairs
    raise NotRecognised("expected heads whose first columns turn, alike in every head")


def _check_heads(rotation: Rotation, turned: Array, partner: Array, cos: Array, sin: Array) -> None:
    n, size = rotation.pairs, rotation.size
    column = np.arange(size)
    expected = (column ^ 1) if rotation.interleaved else np.where(column < n, column + n, column - n)
    if (partner[:size] != np.where(turned[:size], expected, column)).any():
        raise NotRecognised("expected pairs of neighbours, or of columns half of the turned part apart")
    firsts = np.arange(n) * (2 if rotation.interleaved else 1)
    for head in range(len(turned) // size):
        a = head * size + firsts
        b = head * size + partner[firsts]
        wrong = [np.abs(cos[:, a] - rotation.cos), np.abs(cos[:, b] - rotation.cos), np.abs(sin[:, b] - rotation.sin),
                 np.abs(sin[:, a] + rotation.sin)]  # fmt: skip
        if max(float(x.max(initial=0)) for x in wrong) > SAME:
            raise NotRecognised("expected the same angles in every head")


def attention_of(
    mix: Atom, rows: Rows, trace: Trace, presents: Mapping[int, tuple[Atom, Array]]
) -> tuple[tuple[Rows, Rows, Rows], dict[str, Any]]:
    """Queries, keys and values of the new tokens, columns by heads, and the attributes of the attention."""
    soft: Atom = mix.attrs["probabilities"]
    scores, scale, softcap = _scale_of(soft)
    batch, values, keys = mix.attrs["heads"], mix.attrs["values"], scores.attrs["keys"]
    queries, positions = scores.attrs["heads"][batch], soft.attrs["positions"]
    k_columns, v_columns = keys.columns[batch], values.columns
    _check_cache(keys, presents, batch)
    _check_cache(values, presents, np.arange(len(v_columns)))
    _, groups = np.unique(np.concatenate([k_columns, v_columns], axis=1), axis=0, return_inverse=True)
    first = [int(np.flatnonzero(groups == g)[0]) for g in dict.fromkeys(groups.reshape(-1).tolist())]
    kv_heads = len(first)
    each = len(groups) // kv_heads
    if not np.array_equal(groups.reshape(-1), np.repeat(groups.reshape(-1)[first], each)):
        raise NotRecognised("expected equal numbers of neighbouring query heads for each head of keys and values")
    if queries.shape[1] != v_columns.shape[1]:
        raise NotRecognised(f"expected values of the size of keys, {queries.shape[1]}, got {v_columns.shape[1]}")
    operands = (_columns(rows, scores.attrs["q"], queries.reshape(-1)),
                _columns(rows, keys.atom, k_columns[first].reshape(-1)),
                _columns(rows, values.atom, v_columns[first].reshape(-1)))  # fmt: skip
    seen, bias = _seen(soft, batch, positions)
    window, slope = _pattern(seen, bias, trace, queries.shape[0])
    sizes = {"heads": len(groups), "kv_heads": kv_heads, "size": int(queries.shape[1])}
    rest = {"softcap": softcap, "masks": soft.attrs["masks"], "window": window, "alibi_scale": slope}
    return operands, {**sizes, "scale": scale, **rest}


def _scale_of(soft: Atom) -> tuple[Atom, float, float]:
    """The scores, their scale and their soft cap, 0.0 for none."""
    scores: Atom = soft.attrs["scores"]
    if scores.kind == "scores":
        return scores, soft.attrs["gain"], 0.0
    inner, cap = scores.operands[0], float(soft.attrs["gain"])
    if scores.attrs.get("op") != "Tanh" or inner.only is None or inner.only.kind != "scores":
        raise NotRecognised("expected scores, or c * tanh(scores / c)")
    return inner.only, inner.gain * cap, float(f"{cap:.7g}")


def _check_cache(cached: Cached, presents: Mapping[int, tuple[Atom, Array]], batch: Array) -> None:
    """Cached rows must be what earlier steps returned for the same columns."""
    if cached.past is None or cached.past_columns is None:
        return
    if cached.past.index not in presents:
        raise NotRecognised(f"expected {cached.past.where} with new rows behind it among the outputs")
    atom, columns = presents[cached.past.index]
    if atom is not cached.atom or (columns[cached.past_columns[batch]] != cached.columns[batch]).any():
        raise NotRecognised(f"expected the rows of {cached.past.where} to be those that its output returns")


def _columns(rows: Rows, atom: Atom, columns: Array) -> Rows:
    return replace(rows, parts=(Part(atom, columns),), bias=None, gain=1.0, columns=len(columns), first=atom.first,
                   count=atom.rows, addends=())  # fmt: skip


def _seen(soft: Atom, batch: Array, positions: int) -> tuple[Array, Array | None]:
    """Whether row i sees position j (tokens, positions), alike in all heads, and what is added (heads, tokens, ..)."""
    shape = (soft.rows, -1, positions)
    bias = soft.attrs["bias"]
    seen = soft.attrs["seen"] & (True if bias is None else bias > HIDDEN)
    by_head = seen.reshape(shape)[:, batch]
    if (by_head != by_head[:, :1]).any():
        raise NotRecognised("expected a mask that is alike in all heads")
    return by_head[:, 0], None if bias is None else np.moveaxis(bias.reshape(shape)[:, batch], 1, 0)


def _pattern(seen: Array, bias: Array | None, trace: Trace, heads: int) -> tuple[int, float]:
    """The window at the probe (0: all earlier positions), and the factor of ALiBi's slopes, 0.0 for none."""
    window = window_of(seen, trace.probe.past)
    if bias is None:
        return window, 0.0
    # The softmax does not see what a whole row has in common.
    at = trace.probe.past + np.arange(len(seen))
    relative = bias - np.take_along_axis(bias, np.broadcast_to(at[:, None], (heads, len(at), 1)), axis=2)
    relative = np.where(seen, relative, 0.0)
    if np.abs(relative).max() <= SAME:
        return window, 0.0
    distance = np.arange(seen.shape[1]) - at[:, None]
    slopes = alibi_slopes(heads, ALIBI)
    factor = float(relative[0, -1, -2] / (slopes[0] * distance[-1, -2]))
    expected = np.where(seen, factor * slopes[:, None, None] * distance, 0.0)
    if np.abs(relative - expected).max() > 1e-4 * max(1.0, np.abs(expected).max()):
        raise NotRecognised("expected a mask of positions to hide, or ALiBi's slopes added to scores")
    return window, float(f"{factor:.6g}")


def window_of(seen: Array, past: int) -> int:
    """The number of positions that each row sees of those up to its own, where it is not all: 0.

    `seen` (tokens, positions) is what row i, at position past + i, sees. Raises NotRecognised for other patterns.
    """
    ahead = np.arange(seen.shape[1]) - (past + np.arange(seen.shape[0]))[:, None]
    count = int(seen[-1].sum())
    whole = count == past + seen.shape[0]
    expected = (ahead <= 0) & (True if whole else ahead > -count)
    if (seen != expected).any():
        raise NotRecognised("expected each token to see all positions up to its own, or the last of them")
    return 0 if whole else count
