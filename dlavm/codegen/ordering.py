"""Semaphores between the decoupled engines: a WAIT where a command needs what another engine has not finished yet.

`ordered` walks the program and keeps, for every two engines, how much of the one's work the other knows to be done:
each WAIT brings all that its signalling engine knew. A command that would touch bytes of work which its engine does
not know gets an edge: SIGNAL right behind the last such command, WAIT right before this one. Activations meet where
they share addresses, all other buffers by name. A LINEAR is done when its weights have come, so it is `matrix` that
signals for `load`; `load` waits for what it fetches itself, and weights never change.

One semaphore serves each pair of engines: edges of a pair never cross, as both queues are in order.

Loops. What a body needs from before the loop, or from the turn before, comes in *tokens*: signals that are given
before the loop and at the end of each turn, taken once in every turn where they are first needed, and once behind the
loop. Whatever the number of turns, each WAIT finds its own signal. What an engine needs before its first command, from
before the loop alone, it waits for there. What every turn knows of the one before is the largest set that a turn leaves
behind if it begins with it.
"""
from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from dlavm.support.errors import DlavmError
from dlavm.target import TargetSpec
from dlavm.task import Await, For, If, Launch, Program, Signal, Stmt, Wait, walk_body
from dlavm.task.accesses import NOTHING, Access, Meets, access, overlaps

Pair = tuple[str, str]  # who waits, for whom


class _Known(NamedTuple):
    """Of another engine's work: entries before the loop, whether all of the turn before, entries of this body."""

    before: int = 0
    turn: bool = False
    here: int = 0

    def joined(self, other: _Known) -> _Known:
        return _Known(max(self.before, other.before), self.turn or other.turn, max(self.here, other.here))


@dataclass(frozen=True)
class _Entry:
    """A command or a loop in a body, as the work of one engine; `clock`: what that engine knew of the others."""

    access: Access
    clock: Mapping[str, _Known]
    slot: int  # of the statement


@dataclass(frozen=True)
class _Around:
    """What a body finds: entries of the body around its loop, the work of a turn, pairs that know the turn before."""

    entries: Mapping[str, list[_Entry]] = field(default_factory=dict)
    known: Mapping[Pair, int] = field(default_factory=dict)  # how many of these entries
    turn: Mapping[str, Access] = field(default_factory=dict)
    settled: Set[Pair] = frozenset()
    certain: bool = True  # there is at least one turn


@dataclass
class _Body:
    """A body being ordered: `slots[i]` has what precedes statement i and it; what follows its work is in `behind[i]`,
    and behind[0] begins the body. `tokens`: how many entries around each token of a pair is given behind."""

    around: _Around
    slots: list[list[Stmt]] = field(default_factory=lambda: [[]])
    behind: list[list[Stmt]] = field(default_factory=lambda: [[]])
    entries: dict[str, list[_Entry]] = field(default_factory=dict)
    known: dict[Pair, _Known] = field(default_factory=dict)
    tokens: dict[Pair, list[int]] = field(default_factory=dict)
    used: set[Pair] = field(default_factory=set)
    begun: set[str] = field(default_factory=set)  # engines that have waited or worked in it
    early: dict[Pair, int] = field(default_factory=dict)  # entries around the loop that are better waited for there
    latest: dict[Pair, int] = field(default_factory=dict)  # slot behind which the next signal of a pair may stand

    def of(self, pair: Pair) -> _Known:
        return self.known.get(pair) or _Known(self.around.known.get(pair, 0), pair in self.around.settled)

    def done(self, pair: Pair) -> bool:
        """Whether the one knows all that the other has done in this body."""
        return self.of(pair).here >= len(self.entries.get(pair[1], ()))

    def give(self, pair: Pair, slot: int, signal: Signal) -> None:
        """Puts a signal behind a slot, or behind those that are given and taken in loops since."""
        self.latest[pair] = max(slot, self.latest.get(pair, 0))
        self.behind[self.latest[pair]].append(signal)

    def statements(self) -> tuple[Stmt, ...]:
        return tuple(stmt for slot, after in zip(self.slots, self.behind, strict=True) for stmt in (*slot, *after))


def ordered(program: Program, spec: TargetSpec, bases: Mapping[str, int]) -> Program:
    """The program with Signal and Wait for its engines. `bases`: byte address of every buffer.

    Raises DlavmError for a target with too few semaphores.
    """
    return replace(program, body=_Orderer(program, spec, bases).body(program.body, _Around()).statements())


class _Orderer:
    """Recursive in the nesting of blocks, which is small."""

    def __init__(self, program: Program, spec: TargetSpec, bases: Mapping[str, int]) -> None:
        self._engines = spec.enums["engine"]
        pairs = len(self._engines) ** 2
        if spec.limits["semaphores"] < pairs:
            raise DlavmError(f"target {spec.name}: limits.semaphores expected at least {pairs}, one for every two "
                             f"engines, got {spec.limits['semaphores']}")
        self._program, self._spec = program, spec
        self._meets: Meets = overlaps(program, bases)

    def body(self, stmts: Iterable[Stmt], around: _Around) -> _Body:
        body = _Body(around)
        for stmt in stmts:
            body.slots.append([stmt])
            body.behind.append([])
            if isinstance(stmt, For | If):
                self._loop(body, stmt)
            elif isinstance(stmt, Launch) and stmt.op != "LOAD_TABLE":
                self._command(body, stmt)
            elif isinstance(stmt, Launch | Await):
                self._everyone_knows(body)
        return body

    def _command(self, body: _Body, stmt: Launch) -> None:
        engine = self._spec.commands[stmt.op].engine
        assert engine is not None
        parts = [e for e in ("load", engine) if e == engine or "wgt" in stmt.fields]
        for part in parts:
            self._need(body, part, access(stmt, self._program, self._spec, part))
            body.begun.add(part)
        if "load" in parts:  # what it fetches has come, so matrix knows what load knew
            for source in self._engines:
                body.known[engine, source] = body.of((engine, source)).joined(body.of(("load", source)))
        self._enter(body, engine, access(stmt, self._program, self._spec))

    def _enter(self, body: _Body, engine: str, touched: Access) -> None:
        clock = {other: body.of((engine, other)) for other in self._engines if other != engine}
        body.entries.setdefault(engine, []).append(_Entry(touched, clock, len(body.slots) - 1))

    def _everyone_knows(self, body: _Body) -> None:
        for sink in self._engines:
            for source in self._engines:
                before = len(body.around.entries.get(source, ()))
                body.known[sink, source] = _Known(before, True, len(body.entries.get(source, ())))

    # -- edges -----------------------------------------------------------------------------------------------------

    def _need(self, body: _Body, sink: str, touched: Access) -> None:
        """Waits until `sink` may touch that."""
        needs = {}
        for source in self._engines:
            if source != sink and (found := self._conflict(body, (sink, source), touched)) is not None:
                needs[source] = found
        gains = {source: self._gain(body, (sink, source), need) for source, need in needs.items()}
        for source, need in list(needs.items()):
            others = [gains[other].get(source, _Known()) for other in needs if other != source]
            if any(known.joined(need) == known for known in others):
                del needs[source]  # another wait brings it
        for source, need in needs.items():
            self._edge(body, (sink, source), need)

    def _conflict(self, body: _Body, pair: Pair, touched: Access) -> _Known | None:
        """What has to be known of the other engine: its latest work that conflicts."""
        known, around = body.of(pair), body.around
        if place := self._latest(body.entries.get(pair[1], []), known.here, touched):
            return _Known(here=place)
        before = 0
        if not known.here:
            before = self._latest(around.entries.get(pair[1], []), known.before, touched)
        turn = not known.turn and touched.conflicts(around.turn.get(pair[1], NOTHING), self._meets)
        return _Known(before, turn) if before or turn else None

    def _latest(self, entries: list[_Entry], known: int, touched: Access) -> int:
        """Number of the last entry that conflicts, 0 if there is none behind the first `known`."""
        for place in range(len(entries), known, -1):
            if touched.conflicts(entries[place - 1].access, self._meets):
                return place
        return 0

    def _edge(self, body: _Body, pair: Pair, need: _Known) -> None:
        sink, source = pair
        gain = self._gain(body, pair, need)
        body.used.add(pair)
        body.slots[-1].insert(-1, self._wait(pair))
        if need.here:
            body.give(pair, body.entries[source][need.here - 1].slot, self._signal(pair))
        else:
            body.tokens.setdefault(pair, []).append(gain[source].before)
            if not need.turn and sink not in body.begun:
                body.early[pair] = need.before
        for other, known in gain.items():
            if other != sink:
                body.known[sink, other] = body.of((sink, other)).joined(known)

    def _gain(self, body: _Body, pair: Pair, need: _Known) -> dict[str, _Known]:
        """What a wait for that brings: where nothing of this body is needed, by a token."""
        source, around = pair[1], body.around
        if need.here:
            entry = body.entries[source][need.here - 1]
            return {**entry.clock, source: self._all_before(body, source)._replace(here=need.here)}
        entries = around.entries.get(source, [])
        given = max(need.before, body.of(pair).before) if around.certain else len(entries)
        gain = {other: _Known(turn=(source, other) in around.settled) for other in self._engines}
        if given:
            gain |= {other: gain[other].joined(_Known(k.here)) for other, k in entries[given - 1].clock.items()}
        return {**gain, source: _Known(given, True)}

    def _all_before(self, body: _Body, source: str) -> _Known:
        return _Known(len(body.around.entries.get(source, ())), True)

    def _signal(self, pair: Pair) -> Signal:
        return Signal(pair[1], self._semaphore(pair))

    def _wait(self, pair: Pair) -> Wait:
        return Wait(pair[0], self._semaphore(pair))

    def _semaphore(self, pair: Pair) -> int:
        return self._engines[pair[1]] * len(self._engines) + self._engines[pair[0]]

    # -- loops -----------------------------------------------------------------------------------------------------

    def _loop(self, body: _Body, stmt: For | If) -> None:
        certain = isinstance(stmt, For) and stmt.count.lo >= 1
        turn = self._touched(stmt.body, of_load=False)
        for sink, touched in self._touched(stmt.body, of_load=True).items():
            self._need_from_around(body, sink, touched)
        found = self._settle(body, stmt, turn, certain)
        while found.early:  # needed at once and of no other turn: no token, but a wait before the loop
            for pair, place in found.early.items():
                if place > body.of(pair).here:
                    self._edge(body, pair, _Known(here=place))
            found = self._settle(body, stmt, turn, certain)
        if not certain:  # what its body waits for may never come: older tokens of the same semaphore go first
            for pair in sorted(found.used):
                self._need_all_from_around(body, pair)
            found = self._settle(body, stmt, turn, certain)
        for pair, tokens in found.tokens.items():
            last = found.entries[pair[1]][-1].slot if pair[1] in found.entries else len(found.behind) - 1
            for given in tokens:
                found.give(pair, last, self._signal(pair))
                entries = body.entries.get(pair[1], [])
                body.give(pair, entries[given - 1].slot if given else 0, self._signal(pair))
        body.begun |= {*turn, "load"}
        body.used |= found.used
        body.latest |= dict.fromkeys(found.used, len(body.slots) - 1)
        body.slots[-1][-1] = replace(stmt, body=found.statements())
        self._behind_loop(body, found, turn, certain)

    def _settle(self, body: _Body, stmt: For | If, turn: Mapping[str, Access], certain: bool) -> _Body:
        """The body of a loop, where each turn knows of the one before what a turn leaves behind."""
        known = {(sink, source): body.of((sink, source)).here for sink in self._engines for source in self._engines}
        settled = frozenset(known)
        while True:
            found = self.body(stmt.body, _Around(body.entries, known, turn, settled, certain))
            left = frozenset(pair for pair in settled if found.done(pair))
            if left == settled:
                return found
            settled = left

    def _behind_loop(self, body: _Body, found: _Body, turn: Mapping[str, Access], certain: bool) -> None:
        """The work of the loop becomes one entry of each engine; tokens of the last turn are taken."""
        count = {engine: len(body.entries.get(engine, ())) for engine in self._engines}
        for pair, tokens in found.tokens.items():
            body.behind[-1] += [self._wait(pair)] * len(tokens)
        for pair in ((sink, source) for sink in self._engines for source in self._engines if sink != source):
            after, source = found.of(pair), pair[1]
            if pair in found.tokens or (certain and source in turn and found.done(pair)):
                here = count[source] + (source in turn)
            else:
                here = (count[source] if after.here else after.before) if certain else 0
            if pair in found.tokens or (certain and (after.here or here > body.of(pair).here)):
                body.known[pair] = body.of(pair).joined(self._all_before(body, source)._replace(here=here))
        for engine, touched in turn.items():
            self._enter(body, engine, touched)

    def _need_from_around(self, body: _Body, sink: str, touched: Access) -> None:
        """Takes, before a loop, what it needs from further out: tokens are given in the body around a loop only."""
        for source in self._engines:
            pair, around = (sink, source), body.around
            known = body.of(pair)
            if source == sink or known.here:
                continue
            before = self._latest(around.entries.get(source, []), known.before, touched)
            if before or (not known.turn and touched.conflicts(around.turn.get(source, NOTHING), self._meets)):
                self._edge(body, pair, _Known(before, True))

    def _need_all_from_around(self, body: _Body, pair: Pair) -> None:
        known, before = body.of(pair), len(body.around.entries.get(pair[1], ()))
        open_ = known.before < before or (not known.turn and pair[1] in body.around.turn)
        if not known.here and open_:
            self._edge(body, pair, _Known(before, True))

    def _touched(self, stmts: Iterable[Stmt], of_load: bool) -> dict[str, Access]:
        """What each engine that has commands in a body touches in it. `of_load`: what it waits for, where `load` waits
        for weights; else what has to be waited for, where it is `matrix` that says when they have come."""
        found: dict[str, Access] = {}
        for _, stmt in walk_body(tuple(stmts)):
            engine = self._spec.commands[stmt.op].engine if isinstance(stmt, Launch) else None
            for owner in dict.fromkeys([engine, "load"] if of_load else [engine]):
                if owner and isinstance(stmt, Launch):
                    part = access(stmt, self._program, self._spec, owner if of_load else None)
                    found[owner] = found.get(owner, NOTHING) | part
        return found
