"""When commands run: what each one moves and costs, and the order in which they keep the engines busy."""

from dlavm.schedule.order import alone, beside, schedule

__all__ = ["alone", "beside", "schedule"]
