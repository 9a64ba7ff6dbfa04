"""The numpy meaning of the instruction set: slow, obvious, the arbiter in any dispute (doc/numerics.md)."""
from dlavm.sim.reference.device import ReferenceDevice

__all__ = ["ReferenceDevice"]
