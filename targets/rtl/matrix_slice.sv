// One memory channel's share of the matrix engine: packed weights in, accumulators out.
//
// A beat has PORT_BYTES bytes. A row tile is PORT_BYTES / 2 rows; along K it is a row of groups (128 k), each a beat
// of fp16 scales by row and then 4 units (fewer in the last group), one a block of 32 k. A unit is 8 beats, bytes
// ordered [step p 0..3][row][kk 0..3], low nibble k = 8p + kk, high nibble k = 8p + 4 + kk, each nibble w + 8.
// So a beat holds 8 k of half the rows.
//
// The activation side presents, with every beat of weights, the 8 mantissa pairs of the beat's step and the block's
// exponents. All slices run in step, so what feeds them counts beats once for all.
module matrix_slice #(
    parameter int unsigned ACT_BITS = 12,
    parameter int unsigned PORT_BYTES = 16,
    parameter int unsigned MAX_BLOCKS = 1024,  // K <= 32768
    localparam int unsigned ROWS = PORT_BYTES / 2,
    localparam int unsigned QUADS = ROWS / 8,
    localparam int unsigned ROW_WIDTH = $clog2(ROWS),
    localparam int unsigned BLOCK_WIDTH = $clog2(MAX_BLOCKS + 1),
    localparam int unsigned PAIR_WIDTH = 2 * ACT_BITS + 3
) (
    input  logic                       clk_i,
    input  logic                       rst_i,
    input  logic [BLOCK_WIDTH-1:0]     blocks_i,  // of a tile along K, >= 1; steady while a tile runs
    input  logic                       resume_i,  // go on from the accumulators of the tile before; also steady
    input  logic                       valid_i,
    input  logic [PORT_BYTES*8-1:0]    beat_i,
    input  logic [7:0][PAIR_WIDTH-1:0] pair_i,    // m(token 1) * 2^(ACT_BITS + 3) + m(token 0)
    input  logic [1:0][7:0]            exp_i,     // by token
    output logic                       valid_o,
    output logic [QUADS-1:0][ROW_WIDTH-1:0] row_o,
    output logic [QUADS-1:0][1:0][31:0] acc_o     // by quad, token
);

  // where this beat stands
  logic                   want_scale_q;
  logic [2:0]             beat_q;   // in the unit: step, half
  logic [BLOCK_WIDTH-1:0] block_q;  // in the tile
  logic                   tile_last;
  assign tile_last = (block_q + 1'b1 == blocks_i);

  always_ff @(posedge clk_i) begin
    if (rst_i) begin
      want_scale_q <= 1'b1;
      beat_q       <= '0;
      block_q      <= '0;
    end else if (valid_i && want_scale_q) begin
      want_scale_q <= 1'b0;
    end else if (valid_i) begin
      beat_q <= beat_q + 1'b1;
      if (beat_q == 3'd7) begin
        block_q      <= tile_last ? '0 : block_q + 1'b1;
        want_scale_q <= tile_last | (block_q[1:0] == 2'd3);
      end
    end
  end

  // quad q has rows 4q.. of either half
  logic [QUADS-1:0]                quad_valid;
  logic [QUADS-1:0][2:0]           quad_row;
  logic [PORT_BYTES-1:0][7:0]      bytes;
  logic [QUADS-1:0][3:0][7:0][3:0] weight;  // by quad, row, k
  logic [ROWS-1:0][15:0]           scale;
  assign bytes   = beat_i;
  assign scale   = beat_i;
  assign valid_o = quad_valid[0];

  for (genvar q = 0; q < int'(QUADS); q++) begin : g_quad
    for (genvar j = 0; j < 4; j++) begin : g_row
      for (genvar kk = 0; kk < 4; kk++) begin : g_byte
        assign weight[q][j][kk]   = bytes[16*q+4*j+kk][3:0];
        assign weight[q][j][kk+4] = bytes[16*q+4*j+kk][7:4];
      end
    end

    matrix_quad #(.ACT_BITS(ACT_BITS), .HALVES(2)) u_quad (
        .clk_i,
        .rst_i,
        .scale_valid_i(valid_i & want_scale_q),
        .scale_i      ({scale[ROWS/2+4*q+:4], scale[4*q+:4]}),
        .valid_i      (valid_i & ~want_scale_q),
        .first_i      (beat_q[2:1] == 2'd0),
        .last_i       (beat_q[2:1] == 2'd3),
        .tile_first_i (block_q == 0 && !resume_i),
        .tile_last_i  (tile_last),
        .exp_i,
        .weight_i     (weight[q]),
        .pair_i,
        .valid_o      (quad_valid[q]),
        .row_o        (quad_row[q]),
        .acc_o        (acc_o[q]));

    assign row_o[q] = ROW_WIDTH'(quad_row[q][1:0]) + ROW_WIDTH'(4 * q) + (quad_row[q][2] ? ROW_WIDTH'(ROWS / 2) : '0);
  end

endmodule
