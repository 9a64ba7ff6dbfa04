"""What each ONNX operator means, in numpy: one table, filled by the modules beside it."""

from dlavm.frontend.onnx_import.meaning import attention, elementwise, matrix, movement, reduce
from dlavm.frontend.onnx_import.meaning.table import CONTRIB, MEANINGS, Array, Call, Meaning

__all__ = [
    "CONTRIB",
    "MEANINGS",
    "Array",
    "Call",
    "Meaning",
    "attention",
    "elementwise",
    "matrix",
    "movement",
    "reduce",
]
