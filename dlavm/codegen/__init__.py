"""Task IR to instruction streams."""
from dlavm.codegen.stream import generate

__all__ = ["generate"]
