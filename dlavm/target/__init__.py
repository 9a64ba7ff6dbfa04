"""Targets: what the hardware is, read from `targets/*.yaml`; instruction encoding; number tables; generators."""
from dlavm.target.spec import Board, Command, Field, Memory, Register, TargetSpec, load_board, load_target

__all__ = ["Board", "Command", "Field", "Memory", "Register", "TargetSpec", "load_board", "load_target"]
