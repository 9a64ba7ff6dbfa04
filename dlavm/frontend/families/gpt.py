"""The GPT line: GPT-2, GPT-BigCode (SantaCoder, StarCoder), GPT-J, CodeGen, and Starcoder2."""

from __future__ import annotations

from dataclasses import replace

from dlavm.frontend.decoder import Attention, Decoder, Fused, Layer, Mlp, Names, Norm
from dlavm.frontend.families.family import attention_of, decoder_of, mlp_of, names
from dlavm.frontend.families.fields import Fields
from dlavm.frontend.rotary import Rotary

GPT2_ROLES = {
    "embed": "wte",
    "positions": "wpe",
    "final_norm": "ln_f",
    "attn_norm": "ln_1",
    "qkv": "attn.c_attn",
    "o": "attn.c_proj",
    "mlp_norm": "ln_2",
    "up": "mlp.c_fc",
    "down": "mlp.c_proj",
}
GPTJ_ROLES = {
    "embed": "wte",
    "final_norm": "ln_f",
    "attn_norm": "ln_1",
    "o": "attn.out_proj",
    "up": "mlp.fc_in",
    "down": "mlp.fc_out",
}
PROJECTIONS = {"q": "attn.q_proj", "k": "attn.k_proj", "v": "attn.v_proj"}
GPT2_NAMES = Names("transformer.", "h.{}.", "lm_head", GPT2_ROLES)
GPTJ_NAMES = Names("transformer.", "h.{}.", "lm_head", GPTJ_ROLES | PROJECTIONS)
CODEGEN_NAMES = Names("transformer.", "h.{}.", "lm_head", GPTJ_ROLES | {"qkv": "attn.qkv_proj"})
STARCODER2_NAMES = names(gate=None, up="mlp.c_fc", down="mlp.c_proj")
MASKS = ("*.attn.bias", "*.attn.masked_bias", "*.attn.causal_mask")  # buffers of old checkpoints
CODEGEN_BLOCKS = 4  # parts of the machine that CodeGen was trained on, each with its own queries, values and keys


def gpt2(f: Fields) -> Decoder:
    heads, d = _heads(f)
    scale = d**-0.5 if f.flag("scale_attn_weights", True) else 1.0
    attention = Attention(heads, heads, d, scale, bias=True, output_bias=True)
    decoder = replace(_gpt(f, GPT2_NAMES, attention, "gelu_new"), transposed=True, positions=_positions(f))
    if not f.flag("scale_attn_by_inverse_layer_idx", False):
        return decoder
    layers = enumerate(decoder.layers)
    scaled = [Layer(replace(m.attention, scale=scale / (index + 1)), m.mlp) for index, m in layers]
    return replace(decoder, layers=tuple(scaled))


def gpt_bigcode(f: Fields) -> Decoder:
    """One head of keys and values; without multi_query each head has its own, with its query in one block of rows."""
    heads, d = _heads(f)
    kv_heads = 1 if f.flag("multi_query", True) else heads
    scale = d**-0.5 if f.flag("scale_attn_weights", True) else 1.0
    attention = Attention(heads, kv_heads, d, scale, bias=True, output_bias=True)
    fused = Fused(1 if kv_heads == 1 else heads)
    return replace(_gpt(f, GPT2_NAMES, attention, "gelu_pytorch_tanh"), qkv=fused, positions=_positions(f))


def gptj(f: Fields) -> Decoder:
    return _parallel(f, GPTJ_NAMES)


def codegen(f: Fields) -> Decoder:
    f.divided("n_embd", "4 (blocks of the fused projection)", CODEGEN_BLOCKS)
    return replace(_parallel(f, CODEGEN_NAMES), qkv=Fused(CODEGEN_BLOCKS, "qvk"))


def starcoder2(f: Fields) -> Decoder:
    bias = f.flag("use_bias", True)
    window = f.count("sliding_window") if f.has("sliding_window") else 0
    norm = Norm(f.real("norm_epsilon", 1e-5), "layer_norm", beta=True)
    f = f.with_defaults({"tie_word_embeddings": True})
    mlp = mlp_of(f, bias, "gelu_pytorch_tanh", gated=False)
    return decoder_of(f, replace(attention_of(f, bias, bias), window=window), mlp, norm, STARCODER2_NAMES)


def _heads(f: Fields) -> tuple[int, int]:
    heads = f.count("n_head")
    return heads, f.divided("n_embd", "n_head", heads)


def _positions(f: Fields) -> int:
    return f.count("n_positions", 1024)


def _gpt(f: Fields, named: Names, attention: Attention, act: str, tied: bool = True) -> Decoder:
    f.only("add_cross_attention", False)
    size = f.count("n_inner", 4 * f.count("n_embd"))
    mlp = Mlp(size, f.activation("activation_function", act), gated=False, bias=True)
    return Decoder(
        named,
        f.count("vocab_size"),
        f.count("n_embd"),
        _positions(f),
        (Layer(attention, mlp),) * f.depth("n_layer"),
        Norm(f.real("layer_norm_epsilon", 1e-5), "layer_norm", beta=True),
        tied=f.flag("tie_word_embeddings", tied),
    )


def _parallel(f: Fields, named: Names) -> Decoder:
    """Attention beside the MLP behind one norm, adjacent pairs of the first rotary_dim elements turned."""
    heads, d = _heads(f)
    dim = f.count("rotary_dim", 64)
    if dim % 2 or dim > d:
        raise f.error("rotary_dim", f"an even number, at most the {d} elements of a head")
    attention = Attention(heads, heads, d, d**-0.5, Rotary(dim, interleaved=True))
    return replace(_gpt(f, named, attention, "gelu_new", tied=False), parallel=True, head_bias=True)
