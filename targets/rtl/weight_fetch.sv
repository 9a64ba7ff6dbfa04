// Requests of weights in the order in which they are multiplied, as far ahead as the memory's queue takes them:
//   packed weights   a row tile a request
//   keys             for each row tile of tokens, each block of 32 elements: those tokens' part of a cache block
//   values           for each block of 32 tokens all of its elements
module weight_fetch #(
    parameter int unsigned UNITS = 2,
    localparam int unsigned TILE = 8 * UNITS,
    localparam int unsigned PARTS = 32 / TILE,   // row tiles of a cache block
    localparam int unsigned BLOCK_UNITS = 128    // of a cache block: 32 tokens x 32 elements of fp16
) (
    input  logic        clk_i,
    input  logic        rst_i,
    // a command; steady until the next start
    input  logic        start_i,
    input  logic        keys_i,
    input  logic        values_i,
    input  logic [31:0] wgt_i,         // addresses in units of 16 bytes
    input  logic [31:0] wgt_tile_i,
    input  logic [31:0] wgt_b_i,
    input  logic [23:0] tile_units_i,  // packed weights: of a tile
    input  logic [23:0] tiles_i,       // row tiles (packed weights, keys), blocks of 32 tokens (values)
    input  logic [23:0] dim_blocks_i,  // ceil(head_dim / 32)
    input  logic [11:0] batch_i,
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
  logic        accept, tile_done, part_last, tile_last, batch_last;
  assign accept     = active_q & req_ready_i;
  assign tile_done  = accept & (~keys_i | (block_q + 24'd1 == dim_blocks_i));
  assign part_last  = ~keys_i | (part_q == 3'(PARTS - 1));
  assign tile_last  = (tile_q + 24'd1 == tiles_i);
  assign batch_last = (batch_q + 12'd1 == batch_i);

  assign req_valid_o = active_q;
  assign req_unit_o  = unit_q;
  always_comb begin
    req_units_o = tile_units_i;
    if (keys_i) req_units_o = 24'(4 * TILE);
    if (values_i) req_units_o = 24'(dim_blocks_i * BLOCK_UNITS);
  end

  logic [31:0] next_base;  // of the next tile
  assign next_base = part_last ? tile_base_q + wgt_tile_i : tile_base_q;

  always_ff @(posedge clk_i) begin
    if (accept) begin
      block_q <= block_q + 24'd1;
      unit_q  <= unit_q + 32'(BLOCK_UNITS);
    end
    if (tile_done) begin
      block_q     <= '0;
      part_q      <= part_last ? '0 : part_q + 3'd1;
      tile_q      <= tile_q + 24'd1;
      tile_base_q <= next_base;
      unit_q      <= next_base + (part_last ? 32'd0 : 32'(4 * TILE) * (32'(part_q) + 32'd1));
      if (tile_last) begin
        tile_q      <= '0;
        part_q      <= '0;
        batch_q     <= batch_q + 12'd1;
        base_q      <= base_q + wgt_b_i;
        tile_base_q <= base_q + wgt_b_i;
        unit_q      <= base_q + wgt_b_i;
        active_q    <= ~batch_last;
      end
    end
    if (start_i) begin
      active_q    <= 1'b1;
      batch_q     <= '0;
      tile_q      <= '0;
      block_q     <= '0;
      part_q      <= '0;
      base_q      <= wgt_i;
      tile_base_q <= wgt_i;
      unit_q      <= wgt_i;
    end
    if (rst_i) active_q <= 1'b0;
  end
  assign idle_o = ~active_q;

endmodule
