// Beats of packed weights -> units in the unit buffer (doc/architecture.md, "Layouts"): zero points and scales are
// taken aside, slices become entries, of 6-bit codes with their high bits beside them. A beat is taken every cycle
// while there is a free slot.
//
// Zero points and scales fill one beat row. Where a beat has two (HALVES = 1) they put a slice into two beats; then the
// beat row that is left over waits for the next beat. A tile begins with a beat.
module weight_unpack #(
    parameter int unsigned UNITS = 2,
    parameter int unsigned PORT_BYTES = 16,  // of a channel in a beat row
    parameter int unsigned HALVES = 2,       // 1: a beat is two beat rows
    localparam int unsigned ENTRY_WIDTH = $clog2(8 * HALVES)
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
    output logic [ENTRY_WIDTH-1:0]           entry_o,
    output logic [UNITS-1:0][3:0][3:0][11:0] code_o,
    output logic [UNITS-1:0][HALVES-1:0]     write_meta_o,
    output logic [UNITS-1:0][4*HALVES-1:0][23:0] metadata_o,
    output logic                             push_o
);

  import dlavm_formats_pkg::*;

  localparam int unsigned COUNT = 2 / HALVES;  // beat rows of a beat, and of an entry
  localparam int unsigned WIDTH = UNITS * 128 / COUNT;
  localparam int unsigned ENTRIES = 4 * HALVES;  // of a unit of 4-bit codes

  // Where this beat stands: what comes next, the group's number (its last bit), block of the group and of the tile,
  // entry of the unit.
  logic        want_zero_q, want_scale_q, odd_q, held_q;  // a beat row is left over
  logic [2:0]  block_q;
  logic [23:0] left_q;   // blocks of the tile behind this one
  logic [ENTRY_WIDTH-1:0] entry_q, last_entry;
  logic        take, is_zero, is_scale, is_code, unit_last, group_last, tile_last, high;
  logic [1:0]  third_q;  // of 6-bit codes: which of the three slices
  logic        half_q, slice_last;
  logic [1:0]  there, ahead;  // beat rows that are there; those in front of the entry

  assign ready_o    = enable_i & room_i;
  assign take       = valid_i & ready_o;
  assign there      = 2'(COUNT) + 2'(held_q);
  assign ahead     = 2'(want_zero_q) + 2'(want_scale_q);
  assign is_zero    = take & want_zero_q;
  assign is_scale   = take & want_scale_q & (2'(want_zero_q) < there);
  assign is_code    = take & (3'(ahead) + 3'(COUNT) <= 3'(there));
  assign high       = (element_i == ELEMENT_E2M3) && (third_q == 2'd0);
  assign last_entry = (element_i inside {ELEMENT_INT8, ELEMENT_E4M3}) ? ENTRY_WIDTH'(2 * ENTRIES - 1) : ENTRY_WIDTH'(ENTRIES - 1);
  assign unit_last  = ~high & (entry_q == last_entry);
  assign slice_last = (HALVES == 1) | half_q;
  assign group_last = (block_q + 3'd1 == group_blocks_i);
  assign tile_last  = (left_q == 0);

  always_ff @(posedge clk_i) begin
    // Of two or three beat rows one is left over where zero points, scales and an entry take an odd number of them.
    if (take) held_q <= (COUNT == 2) & (there[0] ^ ahead[0]);
    if (is_zero) want_zero_q <= 1'b0;
    if (is_scale) want_scale_q <= 1'b0;
    if (is_code) begin
      // a slice of high bits has two beat rows, too, but no entries
      half_q <= ~half_q;
      if (slice_last) third_q <= (third_q == 2'd2) ? '0 : third_q + 2'd1;
      if (!high) entry_q <= unit_last ? '0 : entry_q + 1'b1;
      if (unit_last) begin
        third_q <= '0;
        block_q <= (group_last || tile_last) ? '0 : block_q + 3'd1;
        left_q  <= tile_last ? blocks_i - 24'd1 : left_q - 24'd1;
        if (tile_last) begin
          odd_q        <= 1'b0;
          held_q       <= 1'b0;
          want_zero_q  <= zero_i;
          want_scale_q <= 1'b1;
        end else if (group_last) begin
          odd_q        <= ~odd_q;
          want_zero_q  <= zero_i & odd_q;
          want_scale_q <= ~e8m0_i | odd_q;
        end
      end
    end
    if (rst_i || clear_i) begin
      want_zero_q  <= zero_i;
      want_scale_q <= 1'b1;
      odd_q        <= 1'b0;
      held_q       <= 1'b0;
      half_q       <= 1'b0;
      block_q      <= '0;
      left_q       <= blocks_i - 24'd1;
      entry_q      <= '0;
      third_q      <= '0;
    end
  end

  // The beat rows that are there, the oldest first: which holds what.
  logic [WIDTH-1:0]     zero_row, scale_row;
  logic [UNITS*128-1:0] entry_rows;
  if (COUNT == 2) begin : g_two
    logic [WIDTH-1:0]      held_row_q;
    logic [2:0][WIDTH-1:0] rows;
    always_ff @(posedge clk_i) if (take) held_row_q <= beat_i[UNITS*128-1-:WIDTH];
    assign rows       = held_q ? {beat_i, held_row_q} : {WIDTH'(0), beat_i};
    assign zero_row   = rows[0];
    assign scale_row  = want_zero_q ? rows[1] : rows[0];
    assign entry_rows = (ahead == 2'd1) ? rows[2:1] : rows[1:0];
  end else begin : g_one
    assign zero_row   = beat_i;
    assign scale_row  = beat_i;
    assign entry_rows = beat_i;
  end

  // A row's two bytes stand in the order of rows of the tile.
  logic [UNITS-1:0][4*HALVES-1:0][15:0] zero_q, scale_q;  // two bytes by quad, row
  for (genvar u = 0; u < int'(UNITS); u++) begin : g_quad
    for (genvar r = 0; r < 4 * int'(HALVES); r++) begin : g_row
      localparam int unsigned ROW = matrix_pkg::first_row(u, r / 4, UNITS, HALVES, PORT_BYTES) + r % 4;
      always_ff @(posedge clk_i) begin
        if (is_zero) zero_q[u][r] <= zero_row[16*ROW+:16];
        if (is_scale) scale_q[u][r] <= scale_row[16*ROW+:16];
      end
      assign metadata_o[u][r] = {
          odd_q ? zero_q[u][r][15:8] : zero_q[u][r][7:0],
          scale_q[u][r][15:8],
          (e8m0_i && odd_q) ? scale_q[u][r][15:8] : scale_q[u][r][7:0]};
    end
  end

  // Codes. The high bits of 16 k come in the slice before their low ones: bits 2q.. of byte kk for k = 4q + kk.
  logic [UNITS-1:0][3:0][3:0][7:0] slice, high_q [HALVES];
  logic [1:0]                      quarter;
  logic                            half;
  assign slice   = entry_rows;
  assign half    = (HALVES == 2) & half_q;
  assign quarter = {third_q[1], 1'b0};  // of the low nibbles: 0, or 2 in the third slice
  always_ff @(posedge clk_i) if (is_code && high) high_q[half] <= slice;
  always_comb begin
    for (int u = 0; u < int'(UNITS); u++)
      for (int r = 0; r < 4; r++)
        for (int kk = 0; kk < 4; kk++)
          code_o[u][r][kk] = {4'(high_q[half][u][r][kk] >> {quarter, 1'b0}), slice[u][r][kk]};
  end

  assign write_o      = {UNITS{is_code & ~high}};
  assign entry_o      = entry_q;
  assign write_meta_o = {UNITS{{HALVES{is_code & unit_last}}}};
  assign push_o       = is_code & unit_last;

endmodule
