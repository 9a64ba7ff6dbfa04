"""Quantised Hugging Face checkpoints: GPTQ, AWQ, compressed-tensors, FP8, MXFP4."""

from dlavm.frontend.quantized.source import QuantizedSource, open_checkpoint, permutations_of

__all__ = ["QuantizedSource", "open_checkpoint", "permutations_of"]
