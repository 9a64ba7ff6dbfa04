"""dlavm compiles large language models for FPGA-style accelerators and runs what it compiled."""

from __future__ import annotations

__version__ = "0.1.0"
