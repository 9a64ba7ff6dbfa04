"""What cycles are spent on: the names of the timed simulator (clib/src/timed/wait.h), and which limit each one is."""

from __future__ import annotations

from collections.abc import Mapping

# The limits, in the order in which they are shown.
MEMORY, LANES, VECTOR, FORM, LATENCY, CONTROL = LIMITS = ("memory", "lanes", "vector", "form", "latency", "control")

# Of an engine with a command, for people. `work` is the engine's own.
TEXT: Mapping[str, str] = {
    "nothing": "no command",
    "semaphore": "another engine",
    "hand_over": "command is handed over",
    "work": "works",
    "stream": "multiplies, the next weights are on their way",
    "decode": "command is decoded",
    "weights": "weights",
    "cache": "keys or values",
    "turn": "keys or values are brought into order",
    "activations": "activations",
    "operands": "bias, scale or residual",
    "source": "rows, ids or a table",
    "epilogue": "results are rounded",
    "write": "memory takes no results",
    "acknowledge": "writes are acknowledged",
    "pipeline": "a pipeline of the engine",
    "off": "off",
    "fetch": "reads the command",
    "control": "executes the command",
    "full": "queue of the command is full",
    "fence": "all engines to be idle",
    "load": "a word of memory",
}
_LIMIT = {
    "work": LANES, "stream": MEMORY, "decode": LATENCY, "weights": MEMORY, "cache": MEMORY, "activations": MEMORY,
    "operands": MEMORY, "source": MEMORY, "write": MEMORY, "turn": FORM, "epilogue": FORM, "acknowledge": LATENCY,
    "pipeline": LATENCY,
}  # fmt: skip
_WORK = {"matrix": LANES, "vector": VECTOR, "store": MEMORY}


def limit_of(engine: str, cause: str) -> str:
    """The limit that a cycle of a command counts for. A wait for memory while nothing comes and no refresh is on is one
    for its latency."""
    name, _, how = cause.partition("/")
    if how == "latency":
        return LATENCY
    return _WORK[engine] if name == "work" else _LIMIT[name]


def text_of(cause: str) -> str:
    """The cause for people."""
    name, _, how = cause.partition("/")
    return TEXT[name] + (f" ({how})" if how else "")
