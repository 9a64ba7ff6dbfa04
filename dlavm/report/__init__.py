"""report.html: one page that shows what the compiler did: memory, steps, bounds, program."""

from dlavm.report.page import render
from dlavm.report.steps import Step, Work, measure

__all__ = ["Step", "Work", "measure", "render"]
