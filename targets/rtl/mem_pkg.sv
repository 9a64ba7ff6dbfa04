// Widths of the memory fabric. A unit is 16 bytes; a row is one beat of the fabric, UNITS units of one space.
package mem_pkg;

  // Lint sees one module at a time, and none uses all of them.
  // verilator lint_off UNUSEDPARAM
  localparam int unsigned UNIT_BITS = 128;
  localparam int unsigned ADDRESS_WIDTH = 40;  // of a byte
  localparam int unsigned COUNT_WIDTH = 24;    // of units in a request
  localparam int unsigned ROW_WIDTH = 36;      // of a row's number in its space
  localparam int unsigned BURST_LIMIT = 256;   // beats of an AXI burst
  localparam int unsigned PAGE_BYTES = 4096;   // no AXI burst goes past a multiple
  // verilator lint_on UNUSEDPARAM

  // Bits that hold 0 .. count-1; never none.
  function automatic int unsigned index_width(input int unsigned count);
    index_width = (count > 1) ? $clog2(count) : 1;
  endfunction

endpackage
