"""Random task programs for the property tests of task, memory and code generation: all of them verify."""

from __future__ import annotations

from hypothesis import strategies as st

from dlavm.sym import Const, Expr, Var, ceildiv, eq, floordiv, le, lt, maximum, minimum, mod, select
from dlavm.target import load_target
from dlavm.target.spec import ADDRESS_UNIT
from dlavm.task import Buffer, Call, For, Function, If, Launch, Let, Program, Stmt
from dlavm.task.ir import loop_bounds, value_bounds

ARGS = (Var("token", 1, 9), Var("kv_len", 0, 12))
BUFFERS = tuple(Buffer(name, "activations", 64 * (i + 1)) for i, name in enumerate(["a", "b.c", "d-1", "e"]))
BASES = {b.name: 4096 * i for i, b in enumerate(BUFFERS)}
FIELDS = load_target("v3", "nano").commands["COPY"].by_name
MOST = 1 << 30  # the scalar unit has 32 bits
ARGUMENTS = [{"token": t, "kv_len": k} for t, k in ((1, 0), (2, 12), (5, 3), (9, 12), (8, 8))]


@st.composite
def expressions(draw: st.DrawFn, env: dict[str, Expr], depth: int = 2) -> Expr:
    if depth == 0 or draw(st.booleans()):
        return draw(st.sampled_from([*env.values(), Const(0), Const(1), Const(3)]))
    a, b = draw(expressions(env, depth - 1)), draw(expressions(env, depth - 1))
    n = draw(st.integers(1, 5))
    made = [a + b, a - b, a * n, a * b, minimum(a, b), maximum(a, b), ceildiv(a, n), floordiv(a, n), mod(a, n)]
    made += [lt(a, b), le(a, b), eq(a, b), select(lt(a, n), a, b), a - floordiv(a, n) * n]
    return draw(st.sampled_from([e for e in made if within(e, -MOST, MOST)]))


def within(expr: Expr, lo: int, hi: int) -> bool:
    return lo <= expr.lo and expr.hi <= hi


def clamped(expr: Expr, hi: int) -> Expr:
    """With values of 0..hi, as a field takes them: itself where its bounds say so."""
    return expr if within(expr, 0, hi) else minimum(maximum(expr, 0), hi)


@st.composite
def bodies(draw: st.DrawFn, env: dict[str, Expr], depth: int, calls: bool) -> tuple[Stmt, ...]:
    env, body = dict(env), list[Stmt]()
    for _ in range(draw(st.integers(0, 4))):
        kind = draw(st.sampled_from(["launch", "launch", "let", "call"] + ["for", "if"] * (depth > 0)))
        free = [name for name in ("x", "y", "z", "w", "v") if name not in env]
        if kind == "launch" or (kind in ("let", "for") and not free):
            fields = {"rows_o": clamped(draw(expressions(env)), FIELDS["rows_o"].limit)}
            for field in draw(st.sampled_from([["src"], ["dst"], ["src", "dst"]])):
                buffer = draw(st.sampled_from(BUFFERS))
                fields[field] = buffer.base + clamped(draw(expressions(env)), buffer.bytes // ADDRESS_UNIT - 1)
            body.append(Launch("COPY", fields, draw(st.sampled_from(["", "layer 1 / #x"]))))
        elif kind == "let":
            value = draw(expressions(env))
            env[free[0]] = Var(free[0], *value_bounds(value))
            body.append(Let(env[free[0]], value))
        elif kind == "call" and calls:
            body.append(Call("f"))
        elif kind == "for":
            count = minimum(draw(expressions(env)), draw(st.integers(0, 3)))
            var = Var(free[0], *loop_bounds(count))
            body.append(For(var, count, draw(bodies({**env, free[0]: var}, depth - 1, calls))))
        elif kind == "if":
            body.append(If(draw(expressions(env)), draw(bodies(env, depth - 1, calls))))
    return tuple(body)


@st.composite
def programs(draw: st.DrawFn) -> Program:
    env = {arg.name: arg for arg in ARGS}
    function = Function("f", draw(bodies(env, 1, False)))
    return Program("random", ARGS, BUFFERS, draw(bodies(env, 3, True)), (function,))
