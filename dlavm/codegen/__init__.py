"""Task IR to what drives a step: streams, patches, register programs; the C++ host project."""
from dlavm.codegen.code import Code, generate

__all__ = ["Code", "generate"]
