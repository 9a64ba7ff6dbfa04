"""Graph passes: one file a pass, run in the order that a plain list gives."""

from dlavm.passes.canonicalise import Canonicalise
from dlavm.passes.cse import Cse
from dlavm.passes.dce import Dce
from dlavm.passes.fold_constants import FoldConstants
from dlavm.passes.fold_scale import FoldScale
from dlavm.passes.fuse_epilogue import FuseEpilogue
from dlavm.passes.fuse_horizontal import FuseHorizontal
from dlavm.passes.last_tokens import LastTokens
from dlavm.passes.materialise_views import MaterialiseViews
from dlavm.passes.order_for_memory import OrderForMemory
from dlavm.passes.quantize_cache import QuantizeCache
from dlavm.passes.quantize_weights import QuantizeWeights
from dlavm.passes.runner import Pass, run

__all__ = [
    "Canonicalise",
    "Cse",
    "Dce",
    "FoldConstants",
    "FoldScale",
    "FuseEpilogue",
    "FuseHorizontal",
    "LastTokens",
    "MaterialiseViews",
    "OrderForMemory",
    "Pass",
    "QuantizeCache",
    "QuantizeWeights",
    "run",
]
