"""Building, checking and driving the SystemVerilog of `targets/rtl/`."""
