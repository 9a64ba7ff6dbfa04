"""Falcon in its three forms (7B, the new decoder architecture, RefinedWeb with ALiBi), and MPT."""

from __future__ import annotations

from dlavm.frontend.decoder import Attention, Decoder, Fused, Layer, Mlp, Names, Norm
from dlavm.frontend.families.family import longest
from dlavm.frontend.families.fields import Fields
from dlavm.frontend.families.rope import rotary

FALCON_ROLES = {
    "embed": "word_embeddings",
    "final_norm": "ln_f",
    "qkv": "self_attention.query_key_value",
    "o": "self_attention.dense",
    "up": "mlp.dense_h_to_4h",
    "down": "mlp.dense_4h_to_h",
}
MPT_ROLES = {
    "embed": "wte",
    "final_norm": "norm_f",
    "attn_norm": "norm_1",
    "qkv": "attn.Wqkv",
    "o": "attn.out_proj",
    "mlp_norm": "norm_2",
    "up": "ffn.up_proj",
    "down": "ffn.down_proj",
}
MPT_NAMES = Names("transformer.", "blocks.{}.", "lm_head", MPT_ROLES)


def falcon(f: Fields) -> Decoder:
    """The fused projection has a block for each group of heads that shares keys and values. ALiBi is scaled as the
    scores are. Its biases are exact here; transformers rounds them to bf16."""
    heads, hidden = f.count("num_attention_heads"), f.count("hidden_size")
    d, new = f.divided("hidden_size", "num_attention_heads", heads), f.flag("new_decoder_architecture", False)
    kv_heads = f.count("num_kv_heads", heads) if new else 1 if f.flag("multi_query", True) else heads
    if heads % kv_heads:
        raise f.error("num_kv_heads", f"a part of {heads} heads")
    if new:
        f.only("parallel_attn", True)
    parallel, bias = new or f.flag("parallel_attn", True), f.flag("bias", False)
    turning = None if f.flag("alibi", False) else rotary(f, d)
    attention = Attention(
        heads,
        kv_heads,
        d,
        d**-0.5,
        turning,
        alibi=0.0 if turning else 8.0,
        alibi_scale=1.0 if turning else d**-0.5,
        bias=bias,
        output_bias=bias,
    )
    mlp = Mlp(f.count("ffn_hidden_size", 4 * hidden), f.activation("activation", "gelu"), gated=False, bias=bias)
    return Decoder(
        Names("transformer.", "h.{}.", "lm_head", FALCON_ROLES | _norms(f, new, parallel)),
        f.count("vocab_size"),
        hidden,
        longest(f.count("max_position_embeddings", 2048), turning),
        (Layer(attention, mlp),) * f.depth("num_hidden_layers"),
        Norm(f.real("layer_norm_epsilon", 1e-5), "layer_norm", beta=True),
        tied=f.flag("tie_word_embeddings", True),
        parallel=parallel,
        qkv=Fused(kv_heads),
    )


def _norms(f: Fields, new: bool, parallel: bool) -> dict[str, str]:
    if new and f.count("num_ln_in_parallel_attn", 2) == 2:
        return {"attn_norm": "ln_attn", "mlp_norm": "ln_mlp"}
    f.only("num_ln_in_parallel_attn", 1)
    single = {"attn_norm": "input_layernorm"}
    return single if parallel else single | {"mlp_norm": "post_attention_layernorm"}


def mpt(f: Fields) -> Decoder:
    heads, hidden = f.count("n_heads"), f.count("d_model")
    d = f.divided("d_model", "n_heads", heads)
    a = f.within("attn_config") or Fields(f.place, {}, "attn_config.")
    for name, value in (("attn_type", "multihead_attention"), ("alibi", True), ("prefix_lm", False), ("qk_ln", False)):
        a.only(name, value)
    for fields, name in ((a, "clip_qkv"), (f, "logit_scale")):
        fields.only(name)
    f.only("no_bias", True)
    scale = a.positive("softmax_scale", d**-0.5)
    attention = Attention(heads, heads, d, scale, alibi=a.positive("alibi_bias_max", 8.0))
    return Decoder(
        MPT_NAMES,
        f.count("vocab_size"),
        hidden,
        f.count("max_seq_len", 2048),
        (Layer(attention, Mlp(hidden * f.count("expansion_ratio", 4), "gelu", gated=False)),) * f.depth("n_layers"),
        Norm(f.real("layer_norm_epsilon", 1e-5), "layer_norm"),
        tied=f.flag("tie_word_embeddings", True),
    )
