// Beats of packed weights -> units in the unit buffer (doc/architecture.md, "Layouts"): zero points and scales are
// taken aside, slices become entries, of 6-bit codes with their high bits beside them. A beat is taken every cycle
// while there is a free slot.
module weight_unpack #(
    parameter int unsigned UNITS = 2,
    parameter int unsigned PORT_BYTES = 16
) (
    input  logic                             clk_i,
    input  logic                             rst_i,
    input  logic                             clear_i,         // before each command
    input  logic                             enable_i,
    input  dlavm_formats_pkg::element_e      element_i,
    input  logic [2:0]                       group_blocks_i,
    input  logic                             e8m0_i,
    input  logic                             zero_i,
    input  logic [23:0]                      blocks_i,        // of a tile along K, >= 1
    input  logic                             valid_i,
    output logic                             ready_o,
    input  logic [UNITS*128-1:0]             beat_i,
    input  logic                             room_i,          // the unit buffer has a free slot
    output logic [UNITS-1:0]                 write_o,
    output logic [3:0]                       entry_o,
    output logic [UNITS-1:0][3:0][3:0][11:0] code_o,
    output logic [UNITS-1:0][1:0]            write_meta_o,
    output logic [UNITS-1:0][7:0][23:0]      metadata_o,
    output logic                             push_o
);

  import dlavm_formats_pkg::*;

  localparam int unsigned QUADS = PORT_BYTES / 16;  // of a channel

  // Where this beat stands: what comes next, the group's number (its last bit), block of the group and of the tile,
  // beat of the unit.
  logic        want_zero_q, want_scale_q, odd_q;
  logic [2:0]  block_q;
  logic [23:0] left_q;   // blocks of the tile behind this one
  logic [3:0]  beat_q;
  logic        take, is_code, unit_last, group_last, tile_last, high;
  logic [1:0]  third_q;  // of 6-bit codes: which of the three slices
  logic [3:0]  last_beat;
  logic        half_q;

  assign ready_o   = enable_i & room_i;
  assign take      = valid_i & ready_o;
  assign is_code   = take & ~want_zero_q & ~want_scale_q;
  assign high      = (element_i == ELEMENT_E2M3) && (third_q == 2'd0);
  assign last_beat = (element_i inside {ELEMENT_INT8, ELEMENT_E4M3}) ? 4'd15 : 4'd7;
  assign unit_last  = ~high & (beat_q == last_beat);
  assign group_last = (block_q + 3'd1 == group_blocks_i);
  assign tile_last  = (left_q == 0);

  always_ff @(posedge clk_i) begin
    if (rst_i || clear_i) begin
      want_zero_q  <= zero_i;
      want_scale_q <= 1'b1;
      odd_q        <= 1'b0;
      block_q      <= '0;
      left_q       <= blocks_i - 24'd1;
      beat_q       <= '0;
      third_q      <= '0;
    end else if (take && want_zero_q) begin
      want_zero_q <= 1'b0;
    end else if (take && want_scale_q) begin
      want_scale_q <= 1'b0;
    end else if (is_code) begin
      // a slice of high bits has two beats, too, but no entries
      half_q <= ~half_q;
      if (half_q) third_q <= (third_q == 2'd2) ? '0 : third_q + 2'd1;
      if (!high) beat_q <= unit_last ? '0 : beat_q + 4'd1;
      if (unit_last) begin
        third_q <= '0;
        block_q <= (group_last || tile_last) ? '0 : block_q + 3'd1;
        left_q  <= tile_last ? blocks_i - 24'd1 : left_q - 24'd1;
        if (tile_last) begin
          odd_q        <= 1'b0;
          want_zero_q  <= zero_i;
          want_scale_q <= 1'b1;
        end else if (group_last) begin
          odd_q        <= ~odd_q;
          want_zero_q  <= zero_i & odd_q;
          want_scale_q <= ~e8m0_i | odd_q;
        end
      end
    end
    if (rst_i || clear_i) half_q <= 1'b0;
  end
  // A row's two bytes stand in the order of rows of the channel; a quad has four rows of either half.
  logic [UNITS*16-1:0][7:0] bytes;
  logic [UNITS-1:0][7:0][15:0] pair, zero_q, scale_q;  // two bytes by quad, row
  assign bytes = beat_i;
  for (genvar u = 0; u < int'(UNITS); u++) begin : g_quad
    for (genvar r = 0; r < 8; r++) begin : g_row
      localparam int unsigned ROW = (u / QUADS) * PORT_BYTES / 2 + (r / 4) * PORT_BYTES / 4 + (u % QUADS) * 4 + r % 4;
      assign pair[u][r] = bytes[2*ROW+:2];
      assign metadata_o[u][r] = {
          odd_q ? zero_q[u][r][15:8] : zero_q[u][r][7:0],
          scale_q[u][r][15:8],
          (e8m0_i && odd_q) ? scale_q[u][r][15:8] : scale_q[u][r][7:0]};
    end
  end
  always_ff @(posedge clk_i) begin
    if (take && want_zero_q) zero_q <= pair;
    else if (take && want_scale_q) scale_q <= pair;
  end

  // Codes. The high bits of 16 k come in the two beats before their low ones: bits 2q.. of byte kk for k = 4q + kk.
  logic [UNITS-1:0][3:0][3:0][7:0] slice, high_q [2];
  logic [1:0]                      quarter;
  assign slice   = beat_i;
  assign quarter = {third_q[1], 1'b0};  // of the low nibbles: 0, or 2 in the third slice
  always_ff @(posedge clk_i) if (is_code && high) high_q[half_q] <= slice;
  always_comb begin
    for (int u = 0; u < int'(UNITS); u++)
      for (int row = 0; row < 4; row++)
        for (int kk = 0; kk < 4; kk++)
          code_o[u][row][kk] = {4'(high_q[half_q][u][row][kk] >> {quarter, 1'b0}), slice[u][row][kk]};
  end

  assign write_o      = {UNITS{is_code & ~high}};
  assign entry_o      = beat_q;
  assign write_meta_o = {UNITS{{2{is_code & unit_last}}}};
  assign push_o       = is_code & unit_last;

endmodule
