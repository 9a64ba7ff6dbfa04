"""Rotary embeddings as a config.json describes them: rope_parameters, or rope_theta and rope_scaling as older ones."""

from __future__ import annotations

import math
from collections.abc import Callable

from dlavm.frontend.families.fields import Fields
from dlavm.frontend.rotary import Linear, Llama3, LongRope, Rotary, Scaling, Yarn
from dlavm.support.errors import DlavmError


def rotary(
    f: Fields, head_dim: int, partial: float = 1.0, interleaved: bool = False, theta: float = 10000.0, kind: str = ""
) -> Rotary:
    """The rotary embedding of heads of `head_dim`; `partial` and `theta` are the family's defaults.

    `kind` names the part of a rope_parameters that has one for each kind of layer. Raises DlavmError for a scaling
    that is not known, and naming the field that is odd.
    """
    theta, partial = f.positive("rope_theta", theta), f.positive("partial_rotary_factor", partial)
    scaling = None
    for name in ("rope_scaling", "rope_parameters"):
        rope = f.within(name)
        if rope is not None and kind and kind in rope.raw:
            rope = rope.within(kind)
        if rope is None:
            continue
        theta = rope.positive("rope_theta", theta)
        partial = rope.positive("partial_rotary_factor", partial)
        scaling = _scaling(f, rope, int(head_dim * partial) // 2) or scaling
    dim = int(head_dim * partial)
    if dim % 2 or not 2 <= dim <= head_dim:
        raise f.error("partial_rotary_factor", f"an even part of a head of {head_dim}")
    return Rotary(dim, theta, interleaved, scaling)


def _scaling(f: Fields, rope: Fields, pairs: int) -> Scaling | None:
    name = "rope_type" if rope.has("rope_type") else "type"
    kind = rope.text(name, "default")
    if kind not in KINDS:
        raise rope.error(name, f"one of {list(KINDS)!r}")
    return KINDS[kind](f, rope, pairs)


def _original(f: Fields, rope: Fields) -> int:
    """The context of the training; Phi-3 has it beside the scaling."""
    outer = f.raw.get("original_max_position_embeddings") or rope.raw.get("original_max_position_embeddings")
    place = f if f.has("original_max_position_embeddings") else rope
    return place.count("original_max_position_embeddings", None if outer else f.count("max_position_embeddings"))


def _plain(f: Fields, rope: Fields, pairs: int) -> Scaling | None:
    """`dynamic` changes frequencies beyond max_position_embeddings alone, which no context of ours exceeds."""
    return None


def _linear(f: Fields, rope: Fields, pairs: int) -> Scaling:
    return Linear(rope.positive("factor"))


def _llama3(f: Fields, rope: Fields, pairs: int) -> Scaling:
    low, high = rope.positive("low_freq_factor"), rope.positive("high_freq_factor")
    if not low < high:
        raise rope.error("high_freq_factor", f"more than low_freq_factor, {low}")
    return Llama3(rope.positive("factor"), low, high, _original(f, rope))


def _yarn(f: Fields, rope: Fields, pairs: int) -> Scaling:
    if rope.has("short_factor"):  # what some Phi-3 checkpoints call LongRoPE
        return _longrope(f, rope, pairs)
    original = _original(f, rope)
    factor = rope.positive("factor", f.count("max_position_embeddings", original) / original)
    scale = 0.1 * math.log(factor) + 1 if factor > 1 else 1.0
    if rope.has("mscale") and rope.has("mscale_all_dim") and factor > 1:
        top, bottom = rope.real("mscale"), rope.real("mscale_all_dim")
        scale = (0.1 * top * math.log(factor) + 1) / (0.1 * bottom * math.log(factor) + 1) if top and bottom else scale
    scale = rope.positive("attention_factor", scale)
    fast, slow = rope.positive("beta_fast", 32.0), rope.positive("beta_slow", 1.0)
    return Yarn(factor, original, scale, fast, slow, rope.flag("truncate", True))


def _longrope(f: Fields, rope: Fields, pairs: int) -> Scaling:
    original = _original(f, rope)
    factor = rope.positive("factor", f.count("max_position_embeddings") / original)
    if original == 1:
        raise DlavmError(f"{f.place}: original_max_position_embeddings expected at least 2 positions, got 1")
    scale = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
    short, long = rope.numbers("short_factor", pairs), rope.numbers("long_factor", pairs)
    return LongRope(short, long, original, rope.positive("attention_factor", scale))


KINDS: dict[str, Callable[[Fields, Fields, int], Scaling | None]] = {
    "default": _plain,
    "dynamic": _plain,
    "linear": _linear,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
    "su": _longrope,  # what the first Phi-3 checkpoints called it
}
