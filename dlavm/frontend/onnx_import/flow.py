"""What the trace of a graph knows of a value that depends on the tokens: of which numbers each element is made.

At a probe every extent is a number, so each element of such a value can be written as

    gain * (coefficient * number + coefficient * number + .. + bias)

where a number is an element of an atom: the result of an operation that does not just move, scale or add, as a matrix
of rows (one a position) and columns. Atoms have addresses in one space, so that operators which place elements are
applied to arrays of addresses; whether an exporter reshapes, splits, repeats or concatenates then makes no difference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from dlavm.frontend.onnx_import.ir import Array
from dlavm.support.errors import DlavmError

NOTHING = 0  # the address of no number
FIRST = 1


LARGEST = 1 << 26  # numbers of one atom

# What numpy raises where shapes, attributes or operands of a file do not fit each other.
MISFITS = (ValueError, TypeError, IndexError, KeyError, AttributeError, ArithmeticError, MemoryError,
           np.exceptions.AxisError)  # fmt: skip


class NotRecognised(Exception):  # noqa: N818 - a finding, collected and reported with its node
    """Why a node, or what was made of it, fits nothing that the hardware does."""


def reason(error: BaseException) -> str:
    """Why something was not recognised, in one line, also of an error of numpy."""
    text = " ".join(str(error).split())
    plain = isinstance(error, NotRecognised | DlavmError)
    return text if plain else f"operands and attributes expected to fit each other, got {type(error).__name__}: {text}"


@dataclass(frozen=True, eq=False)
class Atom:
    """A matrix (rows, columns) that an operation of `kind` makes of `operands`; row r belongs to position first + r.

    `where` is the node that it came from.
    """

    index: int
    kind: str
    rows: int
    columns: int
    first: int
    base: int
    where: str
    operands: tuple[Rows, ...] = ()
    attrs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def addresses(self) -> Array:
        """int64 (rows, columns)."""
        return self.base + np.arange(self.rows * self.columns, dtype=np.int64).reshape(self.rows, self.columns)


@dataclass(frozen=True, eq=False)
class Term:
    """Addresses, and coefficients in float64 (None: all 1), in the shape of the value."""

    address: Array
    coefficient: Array | None = None

    def factors(self) -> Array:
        return np.ones(self.address.shape) if self.coefficient is None else self.coefficient


@dataclass(frozen=True)
class Mask:
    """A static value that hides scores: added, or the condition of a Where that keeps a score where it is `keep`.

    `source` is the name of the value, or a function of the probe's past and tokens for a mask that an operator implies.
    """

    source: str | Callable[[int, int], Array]
    keep: bool | None = None  # None: added


@dataclass(frozen=True, eq=False)
class Flow:
    """A value. `masks` are the static values that may hide its elements; `addends` those
    that were added, by name."""

    terms: tuple[Term, ...]
    bias: Array | None = None
    gain: float = 1.0
    masks: tuple[Mask, ...] = ()
    addends: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.terms[0].address.shape)

    @property
    def plain(self) -> bool:
        """Whether each element is one number, or nothing, times the gain."""
        return len(self.terms) == 1 and self.terms[0].coefficient is None and self.bias is None

    @property
    def fixed(self) -> bool:
        """Whether it is a static value that stands beside flows."""
        return self.bias is not None and not any((t.address != NOTHING).any() for t in self.terms)

    def move(self, place: Callable[[Array], Array]) -> Flow:
        """The same elements in other places; where there are none, `place` puts zeros."""
        terms = tuple(
            Term(place(t.address), None if t.coefficient is None else place(t.coefficient)) for t in self.terms
        )
        return replace(self, terms=terms, bias=None if self.bias is None else place(self.bias))

    def broadcast(self, shape: tuple[int, ...]) -> Flow:
        return self if shape == self.shape else self.move(lambda x: np.broadcast_to(x, shape))

    def times(self, factor: Array) -> Flow:
        """The product with a static value."""
        wide = np.asarray(factor, np.float64)
        if wide.size == 1 and (number := float(wide.reshape(-1)[0])) > 0 and np.isfinite(number):
            out = self.broadcast(np.broadcast_shapes(self.shape, wide.shape))
            return replace(out, gain=self.gain * number)
        shape = np.broadcast_shapes(self.shape, wide.shape)
        flow, wide = self.broadcast(shape), np.broadcast_to(wide, shape)
        terms = tuple(Term(t.address, wide if t.coefficient is None else t.coefficient * wide) for t in flow.terms)
        bias = None if flow.bias is None else flow.bias * wide
        return replace(flow, terms=terms, bias=bias)

    def plus(self, addend: Array, name: str = "") -> Flow:
        """The sum with a static value."""
        wide = np.asarray(addend, np.float64)
        shape = np.broadcast_shapes(self.shape, wide.shape)
        flow = self.broadcast(shape)
        added = np.broadcast_to(wide / self.gain, shape)
        bias = added if flow.bias is None else flow.bias + added
        return replace(flow, bias=bias, addends=_joined(self.addends, name))

    def folded(self) -> Flow:
        """With a gain of 1."""
        if self.gain == 1.0:
            return self
        terms = tuple(Term(t.address, t.factors() * self.gain) for t in self.terms)
        return replace(self, terms=terms, bias=None if self.bias is None else self.bias * self.gain, gain=1.0)


def _joined(names: tuple[str, ...], name: str) -> tuple[str, ...]:
    return names if not name or name in names else (*names, name)


def together(flows: list[Flow], place: Callable[[list[Array]], Array]) -> Flow:
    """A value whose elements are those of several, placed by a function of one array of each."""
    gains = {f.gain for f in flows if not f.fixed}
    if len(gains) == 1:  # static values take the gain of those beside them
        gain = gains.pop()
        flows = [
            replace(f.folded(), bias=np.asarray(f.folded().bias) / gain, gain=gain) if f.fixed else f for f in flows
        ]
    else:
        flows = [f.folded() for f in flows]
    count = max(len(f.terms) for f in flows)
    padded = [[*f.terms, *[Term(np.zeros(f.shape, np.int64))] * (count - len(f.terms))] for f in flows]
    terms = []
    for column in zip(*padded, strict=True):
        plain = all(t.coefficient is None for t in column)
        coefficient = None if plain else place([t.factors() for t in column])
        terms.append(Term(place([t.address for t in column]), coefficient))
    bias = None
    if any(f.bias is not None for f in flows):
        bias = place([np.zeros(f.shape) if f.bias is None else f.bias for f in flows])
    gathered: dict[str, Any] = {
        name: tuple(dict.fromkeys(x for f in flows for x in getattr(f, name))) for name in ("masks", "addends")
    }
    return Flow(tuple(terms), bias, flows[0].gain, **gathered)


def constant(array: Array) -> Flow:
    """A static value as a flow, to stand beside others."""
    wide = np.asarray(array, np.float64)
    return Flow((Term(np.zeros(wide.shape, np.int64)),), wide)


def added(a: Flow, b: Flow) -> Flow:
    """The sum of two values over the same atom, term behind term."""
    shape = np.broadcast_shapes(a.shape, b.shape)
    a, b = a.broadcast(shape), b.broadcast(shape)
    if a.gain != b.gain:
        a, b = a.folded(), b.folded()
    bias = a.bias if b.bias is None else b.bias if a.bias is None else a.bias + b.bias
    addends = tuple(dict.fromkeys((*a.addends, *b.addends)))
    return Flow((*a.terms, *b.terms), bias, a.gain, (*a.masks, *b.masks), addends)


@dataclass(frozen=True)
class Arrangement:
    """How the elements of a shape lie in a matrix of rows and columns: axis `axis` counts positions; `before` and
    `after` are the parts of it beside them where it was merged with others."""

    shape: tuple[int, ...]
    axis: int
    before: int = 1
    after: int = 1

    def rows(self, x: Array) -> Array:
        """(rows, columns) of an array in that shape; columns in the order of the shape."""
        whole = np.broadcast_to(x, self.shape)
        split = (*self.shape[: self.axis], self.before, -1, self.after, *self.shape[self.axis + 1 :])
        moved = np.moveaxis(whole.reshape(split), self.axis + 1, 0)
        return moved.reshape(moved.shape[0], -1)

    def back(self, matrix: Array, last: int | None = None) -> Array:
        """The opposite of `rows`; `last` is another extent of the last axis."""
        shape = self.shape if last is None else (*self.shape[:-1], last)
        length = matrix.shape[0]
        split = [*shape[: self.axis], self.before, self.after, *shape[self.axis + 1 :]]
        return np.moveaxis(matrix.reshape(length, *split), 0, self.axis + 1).reshape(shape)


@dataclass(frozen=True, eq=False)
class Part:
    """A term of `Rows`: for each column the column of an atom (-1: nothing), and the coefficient: None for 1, one a
    column (columns,), or one an element (rows, columns)."""

    atom: Atom
    columns: Array
    coefficient: Array | None = None


@dataclass(frozen=True, eq=False)
class Rows:
    """A value as a matrix of rows of positions first, first + 1, ..; `gain * (sum of parts + bias)`. The bias is None,
    one number a column, or one an element. `mark` finds the value again at another probe: a result of the node that
    needed it, and which of those that this node needed it is."""

    parts: tuple[Part, ...]
    bias: Array | None
    gain: float
    first: int
    count: int
    columns: int
    arrangement: Arrangement
    mark: tuple[str, int] | None = None
    addends: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for values that hold the same numbers."""
        parts = tuple((p.atom.index, p.columns.tobytes(), _bytes(p.coefficient)) for p in self.parts)
        return parts, _bytes(self.bias), self.gain, self.first, self.count

    @property
    def only(self) -> Atom | None:
        """The atom that these rows are, unchanged but for the gain."""
        if len(self.parts) != 1 or self.bias is not None or self.parts[0].coefficient is not None:
            return None
        part = self.parts[0]
        whole = part.atom.columns == self.columns and np.array_equal(part.columns, np.arange(self.columns))
        return part.atom if whole and (part.atom.first, part.atom.rows) == (self.first, self.count) else None


def _bytes(x: Array | None) -> bytes:
    return b"" if x is None else x.tobytes()


def select(rows: Rows, columns: Array) -> Rows:
    """Some columns of a value."""
    if np.array_equal(columns, np.arange(rows.columns)):
        return rows
    parts = tuple(
        Part(p.atom, p.columns[columns], None if p.coefficient is None else p.coefficient[..., columns])
        for p in rows.parts
    )
    bias = None if rows.bias is None else rows.bias[..., columns]
    return replace(rows, parts=parts, bias=bias, columns=len(columns))


def distinct(rows: Rows) -> tuple[Array, Array]:
    """The first of equal columns, and which of them each column is."""
    described: list[Array] = []
    for part in rows.parts:
        described.append(part.columns[None].astype(np.float64))
        described += [] if part.coefficient is None else [np.atleast_2d(part.coefficient)]
    described += [] if rows.bias is None else [np.atleast_2d(rows.bias)]
    _, first, inverse = np.unique(np.concatenate(described), axis=1, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return first[order], rank[inverse.reshape(-1)]


class Space:
    """The atoms of a trace, and their addresses."""

    def __init__(self) -> None:
        self.atoms: list[Atom] = []
        self._bases: list[int] = []
        self._next = FIRST

    def atom(self, kind: str, rows: int, columns: int, first: int, where: str, *operands: Rows, **attrs: Any) -> Atom:
        if min(rows, columns) < 0 or rows * columns > LARGEST:
            raise NotRecognised(f"expected at most {LARGEST} numbers, got {rows} rows of {columns}")
        atom = Atom(len(self.atoms), kind, rows, columns, first, self._next, where, operands, attrs)
        self.atoms.append(atom)
        self._bases.append(self._next)
        self._next += max(1, rows * columns)
        return atom

    def owners(self, address: Array) -> set[int]:
        """Indices of the atoms to which the addresses belong."""
        known = address[address != NOTHING]
        if not known.size:
            return set()
        low, high = (int(np.searchsorted(self._bases, x, "right")) - 1 for x in (known.min(), known.max()))
        if low == high:
            return {low}
        return {int(i) for i in np.unique(np.searchsorted(self._bases, known, "right") - 1)}

    def positions(self, address: Array) -> Array:
        """The position of each number, -1 of none."""
        result = np.full(address.shape, -1, np.int64)
        for index in self.owners(address):
            atom = self.atoms[index]
            mine = (address >= atom.base) & (address < atom.base + atom.rows * atom.columns)
            result[mine] = atom.first + (address[mine] - atom.base) // atom.columns
        return result

    def atoms_of(self, flow: Flow) -> set[int]:
        return {index for term in flow.terms for index in self.owners(term.address)}

    def arrangement(self, flow: Flow) -> tuple[Arrangement, int]:
        """The axis along which positions count up, and the first one. Raises NotRecognised where there is none."""
        at = np.max([self.positions(t.address) for t in flow.terms], axis=0)
        if not (at >= 0).any():
            raise NotRecognised("expected a value of the tokens, got one without")
        low, high = int(at[at >= 0].min()), int(at.max())
        count = high - low + 1
        if count == 1:
            return _single(flow.shape or (1,)), low
        for axis, length in enumerate(flow.shape):
            for before in dict.fromkeys((1, length // count)):
                if length % count == 0 and before * count <= length and (before == 1 or before * count == length):
                    found = Arrangement(flow.shape, axis, before, length // count // before)
                    if _counts_up(found.rows(at), low):
                        return found, low
        raise NotRecognised(f"expected an axis of {list(flow.shape)} that counts positions, got none")

    def rows(self, flow: Flow) -> Rows:
        """The value as a matrix. Raises NotRecognised where an element is of another position than its row, or columns
        differ from row to row."""
        arrangement, first = self.arrangement(flow)
        parts = tuple(part for term in flow.terms for part in self._parts(arrangement, term))
        count, columns = arrangement.rows(flow.terms[0].address).shape
        bias = None if flow.bias is None else _per_column(arrangement.rows(flow.bias))
        return Rows(parts, bias, flow.gain, first, count, columns, arrangement, addends=flow.addends)

    def _parts(self, arrangement: Arrangement, term: Term) -> list[Part]:
        matrix = arrangement.rows(term.address)
        owners = sorted(self.owners(matrix))
        if not owners:
            return []
        if len(owners) > 1:
            wheres = ", ".join(self.atoms[i].where for i in owners[:3])
            raise NotRecognised(f"expected columns of one result, got some of each of {wheres}")
        atom = self.atoms[owners[0]]
        there = matrix != NOTHING
        columns = np.where(there, (matrix - atom.base) % atom.columns, -1)
        if (columns != columns[0]).any():
            raise NotRecognised("expected every row to have the same columns, got others from row to row")
        coefficient = None if term.coefficient is None else _per_column(arrangement.rows(term.coefficient))
        if coefficient is not None and coefficient.ndim == 1 and (coefficient == 1).all():
            coefficient = None
        return [Part(atom, columns[0], coefficient)]


def _single(shape: tuple[int, ...]) -> Arrangement:
    """Of a single position."""
    for axis, length in enumerate(shape):
        if length == 1:
            return Arrangement(shape, axis)
    return Arrangement(shape, 0, 1, shape[0])


def _counts_up(positions: Array, low: int) -> bool:
    """Whether row i has numbers of position low + i, and none of others."""
    expected = low + np.arange(len(positions))[:, None]
    return bool(((positions == expected) | (positions < 0)).all() and (positions >= 0).any(axis=1).all())


def _per_column(matrix: Array) -> Array:
    """(columns,) where all rows are equal, else (rows, columns)."""
    return np.ascontiguousarray(matrix[0] if (matrix == matrix[0]).all() else matrix)
