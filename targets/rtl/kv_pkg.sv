// Sizes of the KV cache (doc/architecture.md, "Layouts"): a block has 32 tokens, a unit of it 32 elements of each.
//
//   fp16     [units][32 tokens] rows of 64 bytes
//   mxint8   [units][32 tokens] rows of 32 bytes, then [units][32 tokens] exponent bytes; blocks are multiples of 64
package kv_pkg;

  // Lint sees one module at a time, and none uses all of them.
  // verilator lint_off UNUSEDPARAM
  localparam int unsigned TOKENS = 32;             // of a block
  localparam int unsigned HALF_ROW = 64;           // bytes of a unit's row
  localparam int unsigned BYTE_ROW = 32;
  localparam int unsigned HALF_UNIT = TOKENS * HALF_ROW;
  localparam int unsigned BYTE_UNIT = TOKENS * BYTE_ROW;  // without its exponents
  localparam int unsigned EXPONENTS = TOKENS;      // bytes of a unit
  localparam int unsigned BIAS = 127;              // of an exponent byte,
  localparam logic [7:0] LOWEST = 8'd103;          // which below reads as this,
  localparam logic [7:0] HIGHEST = 8'd142;         // above as this; fp16 numbers have no other
  // verilator lint_on UNUSEDPARAM

  // Bytes from a block to the next.
  function automatic logic [31:0] block_bytes(input logic bytes, input logic [31:0] units);
    block_bytes = bytes ? (units * (BYTE_UNIT + EXPONENTS) + 32'd63) & ~32'd63 : units * HALF_UNIT;
  endfunction

endpackage
