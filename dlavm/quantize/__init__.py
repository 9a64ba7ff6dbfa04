"""Quantising a checkpoint with what a text says about the inputs of its layers."""

from dlavm.quantize.run import Options, quantize_model
from dlavm.quantize.solve import METHODS

__all__ = ["METHODS", "Options", "quantize_model"]
