"""In-place reuse: which results take the bytes of an operand."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlavm.compile import Options, compile_model, pipeline
from dlavm.frontend import load_model
from dlavm.lower import lower
from dlavm.passes import run
from dlavm.target import load_target
from dlavm.task import parse_program, print_program, share_in_place

NANO = load_target("v3", "nano")
HEAD = "program p(token: 1..8)\n" + "".join(
    f"buffer {n}: {role} {size} bytes f16\n"
    for n, role, size in (
        ("a", "activations", 64), ("b", "activations", 64), ("c", "activations", 64), ("d", "activations", 32),
        ("w", "weights", 64), ("o", "output", 64),
    )
)  # fmt: skip
START = "launch GATHER dst=@a rows_o=token dim=4\n"


def body(text: str) -> str:
    made = print_program(share_in_place(parse_program(HEAD + START + text), NANO))
    return "".join(line + "\n" for line in made.splitlines() if not line.startswith(("program", "buffer")))


@pytest.mark.parametrize(
    ("text", "shared"),
    [
        (
            "launch ACT src=@a dst=@b\nlaunch ACT src=@b dst=@c\n",
            "launch ACT src=@a dst=@a\nlaunch ACT src=@a dst=@a\n",
        ),
        (
            "launch ACT src=@a dst=@b\nlaunch ACT src=@a dst=@c\nlaunch COPY src=@b\n",
            "launch ACT src=@a dst=@b\nlaunch ACT src=@a dst=@a\nlaunch COPY src=@b\n",
        ),
        (
            "launch LINEAR src=@c dst=@b dst_so=4 aux=@a aux_so=4\nlaunch NORM src=@b\n",
            "launch LINEAR src=@c dst=@a dst_so=4 aux=@a aux_so=4\nlaunch NORM src=@a\n",
        ),
        ("launch ELTWISE src=@c dst=@b b=@a\n", "launch ELTWISE src=@c dst=@a b=@a\n"),
        (
            "for t in token:\n  launch LINEAR src=@c+t dst=@b+4*t aux=@a+4*t\n",
            "for t in token:\n  launch LINEAR src=@c+t dst=@a+4*t aux=@a+4*t\n",
        ),
        (  # K tiles: the first launch leaves its sums in the accumulators
            "launch LINEAR src=@c dst=@b acc_out=1\nlaunch LINEAR src=@c dst=@b aux=@a acc_in=1\n",
            "launch LINEAR src=@c dst=@b acc_out=1\nlaunch LINEAR src=@c dst=@b aux=@a acc_in=1\n",
        ),
        (
            "for t in token:\n  launch LINEAR dst=@b+t acc_out=1\n  launch LINEAR dst=@b+t aux=@a+t acc_in=1\n",
            "for t in token:\n  launch LINEAR dst=@a+t acc_out=1\n  launch LINEAR dst=@a+t aux=@a+t acc_in=1\n",
        ),
    ],
)
def test_shared(text: str, shared: str) -> None:
    assert body(text) == START + shared


@pytest.mark.parametrize(
    "text",
    [
        "launch ACT src=@a dst=@b\nlaunch COPY src=@a\n",  # the operand is used again
        "launch ACT src=@a src_so=2 dst=@b dst_so=4\n",  # other rows
        "launch ACT src=@a+2 dst=@b\n",
        "launch ACT src=@a dst=@d\n",  # another size
        "launch ACT src=@a dst=@o\n",  # no activations
        "launch ELTWISE src=@w dst=@b\n",
        "launch LINEAR src=@a dst=@b\n",  # a product reads its source for every output
        "launch COPY src=@a dst=@b\n",
        "launch ELTWISE src=@a b=@a dst=@b b_so=1\n",  # used by two operands
        "launch ACT src=@a dst=@b\nlaunch NORM src=@a dst=@b\n",
        "for t in token:\n  launch ACT src=@a+t dst=@b+t\n  launch COPY src=@a dst=@c\n",
    ],
)
def test_apart(text: str) -> None:
    assert body(text) == START + text


def test_the_bundled_model(repository: Path) -> None:
    """The residual stream is one buffer up to the last rows of the last layer, rotary and gates run in place; the peak
    is no larger, rolled or not."""
    model = load_model(repository / "models" / "stories.py")
    program = lower(run(pipeline(Options(), NANO), model.graph(64, 8)), NANO).program
    shared = share_in_place(program, NANO)
    kept = {b.name for b in shared.buffers if b.role == "activations"}
    assert "embedding" in kept
    assert {n for n in kept if "add" in n or "rope" in n or "mul" in n} == {"layer7.add"}
    peaks = [compile_model(model, NANO, Options(ctx=64, chunk=8, rolls=r)).memory.activations for r in (True, False)]
    assert peaks[0].peak == peaks[1].peak == peaks[0].lower_bound
