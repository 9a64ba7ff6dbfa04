// Requests of weights in the order in which they are multiplied, as far ahead as the memory's queue takes them:
//   packed weights   a row tile a request
//   keys             for each row tile of tokens, each block of 32 elements: those tokens' part of a cache block, or
//                    of each of the tile's cache blocks
//   values           for each block of 32 tokens all of its elements, of each of the heads that share a unit; TOGETHER
//                    blocks of tokens of a head before the next head (block_order)
//   MXINT8 cache     a block of 32 elements at a time, keys or values, and first the exponents of its 32 tokens
module weight_fetch #(
    parameter int unsigned TILE = 16,            // rows
    localparam int unsigned PARTS = (TILE < 32) ? 32 / TILE : 1,  // row tiles of a cache block
    localparam int unsigned SETS = (TILE > 32) ? TILE / 32 : 1,   // cache blocks of a row tile
    localparam int unsigned PART_ROWS = 32 / PARTS,
    localparam int unsigned EXPONENT_UNITS = kv_pkg::EXPONENTS / 16,
    localparam int unsigned BLOCK_UNITS = kv_pkg::HALF_UNIT / 16  // of a block of 32 elements of 32 tokens
) (
    input  logic        clk_i,
    input  logic        rst_i,
    // a command; steady until the next start
    input  logic        start_i,
    input  logic        keys_i,
    input  logic        values_i,
    input  logic        bytes_i,       // of an MXINT8 cache
    input  logic        together_i,    // values
    input  logic [31:0] wgt_i,         // addresses in units of 16 bytes
    input  logic [31:0] wgt_tile_i,
    input  logic [31:0] wgt_b_i,
    input  logic [23:0] tile_units_i,  // packed weights: of a tile
    input  logic [23:0] tiles_i,       // row tiles (packed weights, keys), blocks of 32 tokens (values)
    input  logic [23:0] key_blocks_i,  // keys: blocks of 32 tokens
    input  logic [23:0] dim_blocks_i,  // ceil(head_dim / 32)
    input  logic [11:0] batch_i,
    input  logic [1:0]  heads_i,       // values: of a unit, log2
    output logic        idle_o,
    output logic        req_valid_o,
    input  logic        req_ready_i,
    output logic [31:0] req_unit_o,
    output logic [23:0] req_units_o
);

  logic        active_q;
  logic [11:0] batch_q;
  logic [23:0] tile_q, block_q;
  logic [2:0]  part_q;
  logic [31:0] base_q, tile_base_q, unit_q;
  logic        exponents_q;        // of the block have been asked for
  logic [15:0] set_q;              // keys: cache block of the tile,
  logic [23:0] left_q;             // those from this tile on,
  logic [31:0] block_base_q;       // and its start
  logic [2:0]  head_q, heads;      // values: of the unit
  logic [31:0] span_q;             // from the unit's first head to this one
  logic [2:0]  run_q, run;         // values: block of tokens of those that are read together
  logic        run_last;
  logic        accept, exponents, set_last, block_done, head_done, tile_done, part_last, tile_last, batch_last;
  assign exponents  = bytes_i & ~exponents_q;
  assign accept     = active_q & req_ready_i & ~exponents;
  assign set_last   = ~keys_i | (set_q == 16'(SETS - 1)) | (24'(set_q) + 24'd1 == left_q);
  assign block_done = accept & set_last;
  assign heads      = matrix_pkg::heads_here(heads_i, batch_i - batch_q);
  assign head_done  = block_done & (~(keys_i | bytes_i) | (block_q + 24'd1 == dim_blocks_i));
  assign run        = !together_i ? 3'd1 : (tiles_i - tile_q < 24'(matrix_pkg::TOGETHER)) ? 3'(tiles_i - tile_q)
                                                                                        : 3'(matrix_pkg::TOGETHER);
  assign run_last   = (run_q + 3'd1 == run);
  assign tile_done  = head_done & run_last & (head_q + 3'd1 == heads);
  assign part_last  = ~keys_i | (part_q == 3'(PARTS - 1));
  assign tile_last  = (tile_q + 24'(run) == tiles_i);
  assign batch_last = (batch_q + 12'(heads) == batch_i);

  // Of a block of 32 elements; of a row tile's tokens in it.
  logic [23:0] block_units, part_units;
  assign block_units = bytes_i ? 24'(kv_pkg::BYTE_UNIT / 16) : 24'(BLOCK_UNITS);
  assign part_units  = bytes_i ? 24'(2 * PART_ROWS) : 24'(4 * PART_ROWS);

  assign req_valid_o = active_q;
  always_comb begin
    req_unit_o  = unit_q;
    req_units_o = tile_units_i;
    if (keys_i) req_units_o = part_units;
    if (values_i) req_units_o = bytes_i ? block_units : 24'(dim_blocks_i * BLOCK_UNITS);
    if (exponents) begin
      req_unit_o  = block_base_q + 32'(dim_blocks_i * block_units) + (32'(block_q) * EXPONENT_UNITS);
      req_units_o = 24'(EXPONENT_UNITS);
    end
  end

  // Units from the start of a cache block, or of a tile of packed weights: now, and of the next block of 32 elements.
  logic [31:0] offset, next_offset, tile_step, next_base, next_head, next_batch;
  assign offset      = unit_q - block_base_q;
  assign next_offset = offset + 32'(block_units);
  // A last tile of fewer blocks has none behind it.
  assign tile_step   = (keys_i && SETS > 1) ? wgt_tile_i << $clog2(SETS) :
                       together_i ? wgt_tile_i << $clog2(matrix_pkg::TOGETHER) : wgt_tile_i;
  assign next_base   = part_last ? tile_base_q + tile_step : tile_base_q;  // of the next tile
  assign next_head   = tile_base_q + span_q + wgt_b_i;
  assign next_batch  = base_q + span_q + wgt_b_i;

  always_ff @(posedge clk_i) begin
    if (active_q && req_ready_i) exponents_q <= exponents;
    if (accept && !set_last) begin
      set_q        <= set_q + 16'd1;
      block_base_q <= block_base_q + wgt_tile_i;
      unit_q       <= unit_q + wgt_tile_i;
    end
    if (block_done) begin
      set_q        <= '0;
      block_q      <= block_q + 24'd1;
      block_base_q <= tile_base_q + span_q;
      unit_q       <= tile_base_q + span_q + next_offset;
    end
    if (head_done && !run_last) begin
      block_q      <= '0;
      run_q        <= run_q + 3'd1;
      block_base_q <= block_base_q + wgt_tile_i;
      unit_q       <= block_base_q + wgt_tile_i;
    end
    if (head_done && run_last && !tile_done) begin
      block_q      <= '0;
      run_q        <= '0;
      head_q       <= head_q + 3'd1;
      span_q       <= span_q + wgt_b_i;
      block_base_q <= next_head;
      unit_q       <= next_head;
    end
    if (tile_done) begin
      run_q        <= '0;
      head_q       <= '0;
      span_q       <= '0;
      block_q      <= '0;
      part_q       <= part_last ? '0 : part_q + 3'd1;
      tile_q       <= tile_q + 24'(run);
      left_q       <= left_q - 24'(SETS);
      tile_base_q  <= next_base;
      block_base_q <= next_base;
      unit_q       <= next_base + (part_last ? 32'd0 : 32'(part_units) * (32'(part_q) + 32'd1));
      if (tile_last) begin
        tile_q       <= '0;
        part_q       <= '0;
        left_q       <= key_blocks_i;
        batch_q      <= batch_q + 12'(heads);
        base_q       <= next_batch;
        tile_base_q  <= next_batch;
        block_base_q <= next_batch;
        unit_q       <= next_batch;
        active_q     <= ~batch_last;
      end
    end
    if (start_i) begin
      active_q     <= 1'b1;
      batch_q      <= '0;
      tile_q       <= '0;
      block_q      <= '0;
      part_q       <= '0;
      set_q        <= '0;
      head_q       <= '0;
      run_q        <= '0;
      span_q       <= '0;
      left_q       <= key_blocks_i;
      base_q       <= wgt_i;
      tile_base_q  <= wgt_i;
      block_base_q <= wgt_i;
      unit_q       <= wgt_i;
      exponents_q  <= 1'b0;
    end
    if (rst_i) active_q <= 1'b0;
  end
  assign idle_o = ~active_q;

endmodule
