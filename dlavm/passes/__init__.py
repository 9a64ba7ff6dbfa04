"""Graph passes: one file a pass, run in the order that a plain list gives."""

from dlavm.passes.cse import Cse
from dlavm.passes.dce import Dce
from dlavm.passes.fuse_epilogue import FuseEpilogue
from dlavm.passes.quantize_weights import QuantizeWeights
from dlavm.passes.runner import Pass, run

__all__ = ["Cse", "Dce", "FuseEpilogue", "Pass", "QuantizeWeights", "run"]
