"""What a family of models is to us: how its config.json becomes a `Decoder`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dlavm.frontend.decoder import Attention, Decoder, Layer, Mlp, Names, Norm
from dlavm.frontend.families.fields import Fields
from dlavm.frontend.families.rope import rotary
from dlavm.frontend.rotary import Rotary, Yarn

SLIDING, FULL = "sliding_attention", "full_attention"


@dataclass(frozen=True)
class Family:
    """A row of the table of families.

    `title` is for people; `read` makes the configuration; `hidden`: globs of tensors that checkpoints hold and no
    model reads, masks and such; `roots`: what else its tensors may begin with in place of `names.root`; `nested`: the
    field of config.json in which the text model's fields may stand; `depth`: its name for the number of layers.
    """

    title: str
    read: Callable[[Fields], Decoder]
    hidden: tuple[str, ...] = ()
    roots: tuple[str, ...] = field(default=("",))
    nested: str = ""
    depth: str = "num_hidden_layers"


LLAMA_ROLES = {
    "embed": "embed_tokens",
    "final_norm": "norm",
    "attn_norm": "input_layernorm",
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "mlp_norm": "post_attention_layernorm",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
LLAMA_NAMES = Names("model.", "layers.{}.", "lm_head", LLAMA_ROLES)


def names(**changes: str | None) -> Names:
    """Llama's names with other ones for some roles; without a role whose name is None."""
    roles = {role: name for role, name in (LLAMA_ROLES | changes).items() if name is not None}
    return Names("model.", "layers.{}.", "lm_head", roles)


def heads_of(f: Fields) -> tuple[int, int, int]:
    """Heads, those with keys and values, and the width of one."""
    heads = f.count("num_attention_heads")
    head_dim = f.count("head_dim") if f.has("head_dim") else f.divided("hidden_size", "num_attention_heads", heads)
    return heads, f.count("num_key_value_heads", heads), head_dim


def attention_of(f: Fields, bias: bool = False, output_bias: bool = False, **rope: Any) -> Attention:
    """Attention with rotary embeddings, under the names of Llama's fields."""
    heads, kv_heads, head_dim = heads_of(f)
    if heads % kv_heads:
        raise f.error("num_key_value_heads", f"a part of {heads} heads")
    turning = rotary(f, head_dim, **rope)
    return Attention(heads, kv_heads, head_dim, head_dim**-0.5, turning, bias=bias, output_bias=output_bias)


def mlp_of(f: Fields, bias: bool = False, act: str = "silu", field: str = "hidden_act", gated: bool = True) -> Mlp:
    """An MLP under the names of Llama's fields."""
    return Mlp(f.count("intermediate_size"), f.activation(field, act), gated, bias)


def decoder_of(f: Fields, attention: Attention, mlp: Mlp, norm: Norm, names: Names = LLAMA_NAMES) -> Decoder:
    """Layers that are all alike, under the names of Llama's fields."""
    return Decoder(
        names,
        f.count("vocab_size"),
        f.count("hidden_size"),
        longest(f.count("max_position_embeddings", 2048), attention.rotary),
        (Layer(attention, mlp),) * f.depth("num_hidden_layers"),
        norm,
        tied=f.flag("tie_word_embeddings", False),
    )


def longest(positions: int, rotary: Rotary | None) -> int:
    """The longest context: what the field says, or what YaRN stretches it to."""
    scaling = rotary.scaling if rotary else None
    return max(positions, int(scaling.factor * scaling.original)) if isinstance(scaling, Yarn) else positions


def windows_of(f: Fields, kinds: list[str], default: int | None = None) -> list[int]:
    """The positions that each layer sees, 0 for all, from its kind of attention."""
    if SLIDING not in kinds:
        return [0] * len(kinds)
    window = f.count("sliding_window", default)
    return [window if kind == SLIDING else 0 for kind in kinds]
