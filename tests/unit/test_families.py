"""Families: published configurations in the spelling of their time, rotary embeddings, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlavm.frontend.families import FAMILIES, RELATIVES, Shape, shape
from dlavm.frontend.families.fields import Fields
from dlavm.frontend.families.rope import KINDS, rotary
from dlavm.frontend.hf import shape_of
from dlavm.support.errors import DlavmError
from tests.unit.published_configs import COUNTED, PUBLISHED

CONFIG = Path("config.json")


def weights(made: Shape) -> int:
    """How many numbers its tensors hold."""
    params = {tensor for param in made.graph("m", 1, 1).params for tensor in param.tensors}
    return sum(math.prod(tensor.shape) for tensor in params)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configurations_have_the_weights_of_transformers(name: str) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    fields = PUBLISHED[name]
    theirs = transformers.AutoConfig.for_model(**fields)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(theirs)
    assert weights(shape_of(CONFIG, dict(fields))) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", COUNTED)
def test_other_published_configurations_have_the_weights_that_were_counted(name: str) -> None:
    fields, count = COUNTED[name]
    assert weights(shape_of(CONFIG, fields)) == count


def test_every_family_has_a_published_configuration() -> None:
    fields = [*PUBLISHED.values(), *(fields for fields, _ in COUNTED.values())]
    assert {one["model_type"] for one in fields} == FAMILIES.keys()
    assert set(RELATIVES.values()) <= FAMILIES.keys() and not RELATIVES.keys() & FAMILIES.keys()


ROPES: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default", "rope_theta": 5e5},
    "linear": {"rope_type": "linear", "factor": 3.0, "rope_theta": 1e4},
    "dynamic": {"rope_type": "dynamic", "factor": 3.0, "rope_theta": 1e4},
    "llama3": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 512, "rope_theta": 5e5},
    "llama3, whole context": {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 0.5, "high_freq_factor": 2.0,
                              "rope_theta": 1e4},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256, "rope_theta": 1e4},
    "yarn, fast and slow": {"rope_type": "yarn", "factor": 16.0, "original_max_position_embeddings": 128,
                            "beta_fast": 20.0, "beta_slow": 2.0, "truncate": False, "rope_theta": 1e5},
    "yarn, mscale": {"rope_type": "yarn", "factor": 40.0, "original_max_position_embeddings": 128, "mscale": 1.0,
                     "mscale_all_dim": 0.7, "rope_theta": 1e4},
    "yarn, attention_factor": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256,
                               "attention_factor": 1.5, "rope_theta": 1e4},
    "longrope": {"rope_type": "longrope", "short_factor": [1 + j / 9 for j in range(32)],
                 "long_factor": [3.0 + j for j in range(32)], "original_max_position_embeddings": 256,
                 "rope_theta": 1e4},
    "longrope, factor": {"rope_type": "longrope", "short_factor": [1.0] * 32, "long_factor": [2.0] * 32, "factor": 32.0,
                         "original_max_position_embeddings": 256, "rope_theta": 1e4},
}  # fmt: skip


@pytest.mark.parametrize("ctx", [256, 1024])
@pytest.mark.parametrize("name", ROPES)
def test_frequencies_are_those_of_transformers(name: str, ctx: int) -> None:
    transformers = pytest.importorskip("transformers")
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    sizes = {"hidden_size": 128, "num_attention_heads": 2, "head_dim": 64, "max_position_embeddings": 1024}
    config = transformers.LlamaConfig(**sizes, rope_parameters=dict(ROPES[name]))
    plain = LlamaRotaryEmbedding.compute_default_rope_parameters
    theirs, scale = ROPE_INIT_FUNCTIONS.get(ROPES[name]["rope_type"], plain)(config, seq_len=ctx)
    ours = rotary(Fields("here", {**sizes, "rope_parameters": ROPES[name]}), 64)
    found, ours_scale = ours.scaling.apply(ours, ctx) if ours.scaling else (ours.plain, 1.0)
    np.testing.assert_allclose(found, theirs.double().numpy(), rtol=2e-6)
    assert ours_scale == pytest.approx(scale, rel=1e-6)


def test_older_spellings_of_rotary_embeddings() -> None:
    def read(**fields: Any) -> object:
        return rotary(Fields("here", {"max_position_embeddings": 1024, **fields}), 64)

    new = {**ROPES["yarn"], "partial_rotary_factor": 0.5}
    old = {k: v for k, v in new.items() if k not in ("rope_theta", "rope_type", "partial_rotary_factor")}
    assert read(rope_parameters=new) == read(
        rope_theta=1e4, partial_rotary_factor=0.5, rope_scaling={**old, "type": "yarn"}
    )
    outside = {k: v for k, v in ROPES["longrope"].items() if k != "original_max_position_embeddings"}
    for kind in ("longrope", "su", "yarn"):
        assert read(rope_scaling={**outside, "rope_type": kind}, original_max_position_embeddings=256) == read(
            rope_parameters=ROPES["longrope"]
        )
    assert read(rope_scaling=None) == read() == read(rope_scaling={"type": "default"})


def test_longrope_of_one_position_is_refused() -> None:
    fields = {"max_position_embeddings": 1024, "rope_scaling": {**ROPES["longrope"], "type": "longrope"}}
    for original in (0, 1):
        with pytest.raises(DlavmError, match=r"here: original_max_position_embeddings expected"):
            rotary(Fields("here", {**fields, "original_max_position_embeddings": original}), 64)


def test_yarn_stretches_the_longest_context() -> None:
    fields = {**PUBLISHED["Qwen2.5-7B"], "max_position_embeddings": 32768}
    del fields["model_type"]
    yarn = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    assert shape("qwen2", **fields).max_position_embeddings == 32768
    assert shape("qwen2", **fields, rope_scaling=yarn).max_position_embeddings == 131072


def test_gemma3_by_its_older_fields() -> None:
    old = shape_of(CONFIG, {**PUBLISHED["gemma-3-1b"], "rope_scaling": {"rope_type": "linear", "factor": 8.0}})
    fields = {k: v for k, v in PUBLISHED["gemma-3-1b"].items() if not k.startswith(("rope", "sliding_window_p"))}
    new = {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    kinds = ["full_attention" if (i + 1) % 6 == 0 else "sliding_attention" for i in range(26)]
    assert old.decoder == shape_of(CONFIG, {**fields, "rope_parameters": new, "layer_types": kinds}).decoder
    windows = [layer.attention.window for layer in old.decoder.layers]
    assert windows[:7] == [512] * 5 + [0, 512]
    assert [layer.attention.rotary.theta for layer in old.decoder.layers[4:6] if layer.attention.rotary] == [1e4, 1e6]


def test_first_gemma_files_mean_the_tanh_form() -> None:
    assert {layer.mlp.act for layer in shape_of(CONFIG, PUBLISHED["gemma-2b"]).decoder.layers} == {"gelu_tanh"}
    named = {**PUBLISHED["gemma-2b"], "hidden_activation": "gelu"}
    assert {layer.mlp.act for layer in shape_of(CONFIG, named).decoder.layers} == {"gelu"}


def test_rope_ratio_of_chatglm() -> None:
    fields, _ = COUNTED["glm-4-9b"]
    found = shape_of(CONFIG, {**fields, "rope_ratio": 500}).decoder.layers[0].attention.rotary
    assert found and (found.theta, found.dim, found.interleaved) == (5e6, 64, True)


@pytest.mark.parametrize(
    ("family", "near"),
    [("opt", "gpt2"), ("qwen2_moe", "qwen3_moe"), ("mistral3", "mistral"), ("gemma3n", "gemma3"), ("bloom", "falcon")],
)
def test_a_family_that_is_not_there_is_refused_with_the_nearest(family: str, near: str) -> None:
    message = rf"config.json: model_type expected one of \['llama', .*\({near} is the nearest to it: .*, got '{family}'"
    with pytest.raises(DlavmError, match=message):
        shape_of(CONFIG, {"model_type": family})


@pytest.mark.parametrize("family", ["zzz", "mamba", "bert"])
def test_a_family_like_none_is_refused_without(family: str) -> None:
    with pytest.raises(DlavmError, match=rf"'glm4'\], got '{family}'"):
        shape_of(CONFIG, {"model_type": family})


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("gemma-2b", {"use_bidirectional_attention": True}, "use_bidirectional_attention expected False, got True"),
        ("gemma-3-1b", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping expected none, got 50.0"),
        ("gemma-2-9b", {"layer_types": ["chunked_attention"] * 42}, "layer_types expected one of .* each of 42 layers"),
        ("gemma-2-9b", {"layer_types": ["full_attention"]}, "layer_types expected one of .* for each of 42 layers"),
        ("gemma-2-9b", {"final_logit_softcapping": -1}, "final_logit_softcapping expected a number above 0, got -1"),
        ("Mixtral-8x7B-v0.1", {"num_experts_per_tok": 9}, "num_experts_per_tok expected at most the 8 experts, got 9"),
        ("Qwen3-30B-A3B", {"mlp_only_layers": 3}, "mlp_only_layers expected a list of layers, got 3"),
        ("Mistral-7B-v0.1", {"sliding_window": 0}, "sliding_window expected a positive integer, got 0"),
        ("Mistral-7B-v0.1", {"num_key_value_heads": 5}, "num_key_value_heads expected a part of 32 heads, got 5"),
        ("mpt-7b", {"attn_config": {"clip_qkv": 6}}, "attn_config.clip_qkv expected none, got 6"),
        ("mpt-7b", {"attn_config": {"alibi": False}}, "attn_config.alibi expected True, got False"),
        ("mpt-7b", {"attn_config": {"attn_type": "multiquery_attention"}}, "attn_config.attn_type expected 'multihead"),
        ("mpt-7b", {"no_bias": False}, "no_bias expected True, got False"),
        ("mpt-7b", {"logit_scale": "inv_sqrt_d_model"}, "logit_scale expected none, got 'inv_sqrt_d_model'"),
        ("gpt2", {"add_cross_attention": True}, "add_cross_attention expected False, got True"),
        ("gpt2", {"n_embd": 770}, "n_embd expected a multiple of n_head, got 770 and 12"),
        ("gpt-j-6b", {"rotary_dim": 63}, "rotary_dim expected an even number, at most the 256 elements"),
        ("codegen-350M-mono", {"n_embd": 1026, "n_head": 9}, "n_embd expected a multiple of 4 .*, got 1026 and 4"),
        ("falcon-40b", {"parallel_attn": False}, "parallel_attn expected True, got False"),
        ("falcon-40b", {"num_kv_heads": 7}, "num_kv_heads expected a part of 128 heads, got 7"),
        ("falcon-7b", {"num_ln_in_parallel_attn": 2}, "num_ln_in_parallel_attn expected 1, got 2"),
        ("phi-2", {"partial_rotary_factor": 1.5}, "partial_rotary_factor expected an even part of a head of 80"),
        ("Phi-3.5-mini", {"rope_scaling": {"type": "su", "short_factor": [1.0]}}, "short_factor expected a list of 48"),
        ("Llama-3.1-8B", {"rope_scaling": {"type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4}},
         "high_freq_factor expected more than low_freq_factor, 4.0, got 4"),
        ("Llama-3.1-8B", {"num_hidden_layers": 10**7}, "num_hidden_layers expected at most 10000 layers"),
    ],
)  # fmt: skip
def test_what_a_family_does_not_support_is_refused_by_name(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DlavmError, match=rf"config.json: .*{message}"):
        _ = shape_of(CONFIG, {**PUBLISHED[name], **changes}).decoder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"position_encoding_2d": True}, "expected ChatGLM2, ChatGLM3 or GLM-4, got the first ChatGLM-6B"),
        ({"rmsnorm": False}, "rmsnorm expected True, got False"),
        ({"original_rope": False}, "original_rope expected True, got False"),
        ({"kv_channels": 66}, "kv_channels expected a multiple of 4, got 66"),
        ({"multi_query_group_num": 3}, "multi_query_group_num expected a part of 32 heads, got 3"),
    ],
)
def test_what_chatglm_does_not_support(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DlavmError, match=message):
        _ = shape_of(CONFIG, {**COUNTED["chatglm3-6b"][0], **changes}).decoder


def test_all_kinds_of_scaling_are_tried() -> None:
    assert {rope["rope_type"] for rope in ROPES.values()} | {"su"} == KINDS.keys()
