// Which rows of a tile a quad works on (doc/architecture.md, "Layouts"). A slice of a channel's rows fills two beats of
// the channel. With HALVES = 2 a beat of weights is one beat row and a quad has four rows of the first half of its
// channel's and four of the second; with HALVES = 1 it is two beat rows, a slice, and a quad has four rows.
package matrix_pkg;

  // Lint sees one module at a time, and none uses all of it.
  // verilator lint_off UNUSEDSIGNAL
  // A LINEAR as linear_decode leaves it, with the words of its payload.
  typedef struct packed {
    logic [dlavm_isa_pkg::LINEAR_WORDS-1:0][31:0] words;
    dlavm_formats_pkg::format_t format;
    logic        keys;
    logic        values;
    logic        bytes;       // of an MXINT8 cache
    logic [23:0] rows;        // all rows
    logic [23:0] k_blocks;
    logic [23:0] n_blocks;
    logic [5:0]  k_tail;      // elements of the last block, 1..32
    logic [5:0]  n_tail;
    logic [23:0] tiles;       // ceil(n / TILE)
    logic [23:0] tile_units;  // packed weights: of a row tile, in 16 bytes
    logic        pieces;      // src is loaded 32 k at a time,
    logic [1:0]  places;      // into 2^places places of the activation buffer
    logic [1:0]  heads;       // of a unit of values, log2
    logic        ordered;     // the cache is fetched in the order of memory (block_order)
  } job_t;
  // verilator lint_on UNUSEDSIGNAL

  // The first of a quad's four rows of a half. `beat_bytes`: a channel's share of a beat row.
  function automatic int unsigned first_row(input int unsigned quad, input int unsigned half, input int unsigned quads,
                                            input int unsigned halves, input int unsigned beat_bytes);
    int unsigned place, side;
    place     = (halves == 2) ? quad : quad % (quads / 2);
    side      = (halves == 2) ? half : quad / (quads / 2);
    first_row = place / (beat_bytes / 16) * (beat_bytes / 2) + side * (beat_bytes / 4) + place % (beat_bytes / 16) * 4;
  endfunction

  // TOGETHER: blocks of 32 tokens of a head that are read one after the other where heads share a unit of values; blocks of
  // 32 elements of a token's keys that may be (block_order). Lint sees one module at a time, and none uses both of these.
  // verilator lint_off UNUSEDPARAM
  localparam int unsigned TOGETHER = 4;
  localparam int unsigned RESULT_LATENCY = 2;  // of epilogue_results
  // verilator lint_on UNUSEDPARAM

  // Heads of this unit of values: no more than 2^most, nor than are left of the batch.
  function automatic logic [2:0] heads_here(input logic [1:0] most, input logic [11:0] left);
    heads_here = (left < (12'd1 << most)) ? left[2:0] : 3'd1 << most;
  endfunction

endpackage
