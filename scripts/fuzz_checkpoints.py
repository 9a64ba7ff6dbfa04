"""What scripts/fuzz_files.py begins with: sound files, and checkpoints of which an input's bytes change parts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from tests.unit.gguf_files import SIZES, random_blocks, write
from tests.unit.quantized_llama import CONFIG, LINEARS, others
from tests.unit.quantized_tensors import Made, awq, fp8, gptq, int_quantized, mxfp4_packed, pack_quantized
from tests.unit.quantized_tensors import write as write_checkpoint

FIRST_LAYER = "model.layers.0."
GROUPED: dict[str, Any] = {"group_0": {"weights": {"num_bits": 4, "group_size": 32}}}
COMPRESSED = {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": GROUPED}
# Tensors of a layer that an architecture has beside those of Llama.
MORE: dict[str, dict[str, tuple[int, ...]]] = {
    "llama": {},
    "qwen2": {"attn_q.bias": (64,), "attn_k.bias": (32,), "attn_v.bias": (32,)},
    "gemma2": {"post_attention_norm.weight": (64,), "post_ffw_norm.weight": (64,)},
    "phi3": {"attn_qkv.weight": (128, 64), "ffn_up.weight": (192, 64)},
}
FUSED = ("attn_q.", "attn_k.", "attn_v.", "ffn_gate.")  # in the layers of phi3
Maker = Callable[[int, int], Made]
METHODS: list[tuple[dict[str, Any], Maker]] = [
    ({"quant_method": "gptq", "bits": 4, "group_size": 32}, lambda n, k: gptq(n, k, act=True)),
    ({"quant_method": "gptq", "bits": 8, "group_size": -1}, lambda n, k: gptq(n, k, -1, bits=8)),
    ({"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm"}, awq),
    (COMPRESSED, lambda n, k: pack_quantized(n, k, sym=False)),
    (COMPRESSED, lambda n, k: pack_quantized(n, k, act=True)),
    (COMPRESSED, lambda n, k: int_quantized(n, k, (n, k // 32), 32, sym=False)),
    ({"quant_method": "fp8", "weight_block_size": [32, 32]},
     lambda n, k: fp8(n, k, (n // 32, k // 32), (32, 32), "weight_scale_inv", np.float32)),
    (COMPRESSED, mxfp4_packed),
]  # fmt: skip
DTYPES = (np.int32, np.float16, np.float32, np.int8, np.uint8, np.int64, ml_dtypes.bfloat16, np.float64, np.bool_)
NUMBERS = (-(1 << 31), -1, 0, 1, 2, 16, 33, 127, 255, 1 << 20, (1 << 31) - 1)
VALUES = (None, -1, 0, 3, 1 << 40, "32", [], [128, 128], {}, True, 0.5)


def gguf_files() -> list[bytes]:
    """Small models: of each architecture, with each element type."""
    layer = {"attn_norm": (64,), "attn_q": (64, 64), "attn_k": (32, 64), "attn_v": (32, 64), "attn_output": (64, 64),
             "ffn_norm": (64,), "ffn_gate": (96, 64), "ffn_up": (96, 64), "ffn_down": (64, 96)}  # fmt: skip
    shapes = {"token_embd": (40, 64), "output_norm": (64,), "output": (40, 64)}
    shapes |= {f"blk.0.{name}": shape for name, shape in layer.items()}
    tensors = {f"{name}.weight": np.ones(shape, np.float32) for name, shape in shapes.items()}
    tokens = {".tokenizer.ggml.model": "gpt2", ".tokenizer.ggml.pre": "gpt-2", ".tokenizer.ggml.merges": ["a b"],
              ".tokenizer.ggml.tokens": ["a", "b", "ab", "<s>"], ".tokenizer.ggml.token_type": [1, 1, 1, 3],
              ".tokenizer.ggml.bos_token_id": 3}  # fmt: skip
    pieces = {**tokens, ".tokenizer.ggml.model": "llama", ".tokenizer.ggml.scores": [0.5, 1.0, 2.0, 0.0]}
    fields = {**SIZES, "block_count": 1}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.gguf"
        found = []
        for name, extra in (("llama", tokens), ("qwen2", pieces), ("gemma2", {}), ("phi3", {})):
            own = {k: v for k, v in tensors.items() if name != "phi3" or not any(part in k for part in FUSED)}
            own |= {f"blk.0.{part}": np.ones(shape, np.float32) for part, shape in MORE[name].items()}
            found.append(write(path, name, {**fields, **extra}, own).read_bytes())
        import gguf

        for kind in ("F16", "BF16", "Q8_0", "Q4_0", "Q5_1"):
            number = gguf.GGMLQuantizationType[kind]
            stored = {n: (w, number) if w.ndim == 2 else w for n, w in tensors.items()}
            found.append(write(path, "llama", fields, stored).read_bytes())
        blocks = random_blocks(gguf.GGMLQuantizationType.Q6_K, 40)
        big = {"token_embd.weight": (blocks, gguf.GGMLQuantizationType.Q6_K)}
        return [*found, write(path, "llama", fields, big).read_bytes()]


def _llama(method: int) -> dict[str, NDArray[Any]]:
    """The tensors of a Llama with one layer."""
    make = METHODS[method][1]
    tensors = {name: tensor for name, tensor in others().items() if ".layers.1." not in name}
    for name, (n, k) in LINEARS.items():
        tensors |= {f"{FIRST_LAYER}{name}.{end}": tensor for end, tensor in make(n, k).tensors.items()}
    return tensors


def safetensors_files() -> list[bytes]:
    """A float model, and a quantised one, as files."""
    with TemporaryDirectory() as folder:
        path, found = Path(folder), []
        floats = {name: np.ones((n, k), np.float16) for name, (n, k) in LINEARS.items()}
        plain = {f"{FIRST_LAYER}{name}.weight": values for name, values in floats.items()}
        kept = {name: tensor for name, tensor in others().items() if ".layers.1." not in name}
        for tensors in ({**kept, **plain}, _llama(6)):
            write_checkpoint(path, tensors, None)
            found.append((path / "model.safetensors").read_bytes())
        return found


class _Bytes:
    """Choices, one after the other, from an input; zeros behind its end."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def below(self, count: int) -> int:
        pair = self._data[self._at : self._at + 2].ljust(2, b"\0")
        self._at += 2
        return int.from_bytes(pair, "little") % count

    def left(self) -> bool:
        return self._at < len(self._data)


def changed_checkpoint(data: bytes, folder: Path) -> None:
    """Writes a quantised checkpoint with up to six changes: tensors missing, of other types, shapes and numbers, fields
    of the configuration with other values."""
    choices = _Bytes(data)
    method = choices.below(len(METHODS))
    tensors, quantization = _llama(method), json.loads(json.dumps(METHODS[method][0]))
    for _ in range(1 + choices.below(6)):
        if not choices.left():
            break
        if choices.below(5) == 0:
            _change_field(choices, quantization)
        elif tensors:
            _change_tensor(choices, tensors)
    write_checkpoint(folder, tensors, quantization, **{**CONFIG, "num_hidden_layers": 1})


def _change_field(choices: _Bytes, fields: dict[str, Any]) -> None:
    place: Any = fields
    while True:
        key = list(place)[choices.below(len(place))]
        if not isinstance(place[key], Mapping) or not place[key]:
            break
        place = place[key]
    place[key] = VALUES[choices.below(len(VALUES))]


def _change_tensor(choices: _Bytes, tensors: dict[str, NDArray[Any]]) -> None:
    name = sorted(tensors)[choices.below(len(tensors))]
    values, change = tensors[name], choices.below(6)
    if change == 0:
        del tensors[name]
    elif change == 1:
        with np.errstate(invalid="ignore", over="ignore"):
            tensors[name] = values.astype(np.float32).astype(DTYPES[choices.below(len(DTYPES))])
    elif change == 2:
        tensors[name] = values.reshape(-1)[: choices.below(values.size + 1)]
    elif change == 3:
        tensors[name] = values[: choices.below(len(values) + 1)] if values.ndim else values.reshape(1)
    elif change == 4:
        tensors[name] = np.concatenate([values, values]) if values.ndim else np.stack([values, values])
    elif values.size:
        flat = values.reshape(-1).copy()
        number = NUMBERS[choices.below(len(NUMBERS))]
        with np.errstate(over="ignore", invalid="ignore"):
            flat[choices.below(values.size)] = np.float64(number).astype(values.dtype)
        tensors[name] = flat.reshape(values.shape)
