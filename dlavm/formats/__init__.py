"""Number formats of weights: what a code means, how floats become codes."""

from dlavm.formats.grid import Grid
from dlavm.formats.quantize import convert, nearest, quantize, scales
from dlavm.formats.substitute import substitute
from dlavm.formats.table import BLOCK, ELEMENTS, FORMATS, Element, Format, format_of

__all__ = ["BLOCK", "ELEMENTS", "FORMATS", "Element", "Format", "Grid", "convert", "format_of", "nearest", "quantize",
           "scales", "substitute"]  # fmt: skip
