// Plays an operand through the lanes: for each slice of the unit its halves, a step a cycle; two steps for wide formats
// where lanes share what these need (matrix_quad), but for one token alone with plain numbers. The unit buffer answers a cycle after its address, so what goes to the
// lanes is registered here. Operands follow each other without a gap.
module matrix_steps #(
    parameter int unsigned HALVES = 2,
    parameter int unsigned SHARE = 1,
    parameter int unsigned SETS = 1,           // of mantissas (activation_feed)
    parameter int unsigned RESULT_BLOCKS = 4,  // block results that the epilogue has room for
    parameter int unsigned SLOT_WIDTH = 3,
    parameter int unsigned GROUP_WIDTH = 8,
    localparam int unsigned ENTRY_WIDTH = $clog2(8 * HALVES)
) (
    input  logic                   clk_i,
    input  logic                   rst_i,
    input  logic                   narrow_i,       // 4 slices, else 8
    input  logic                   six_i,          // entries of two slices
    input  logic                   plain_i,        // INT8, cache (weight_decode)
    // the operand (activation_feed)
    input  logic                   valid_i,
    output logic                   take_o,
    input  logic [SETS-1:0][1:0][31:0][11:0] mantissa_i,
    input  logic [SETS-1:0][1:0][7:0] exp_i,
    input  logic [1:0][17:0]       sum_i,
    input  logic                   single_i,       // one token; what stands for the second means nothing
    input  logic                   fresh_i,
    input  logic                   load_i,
    input  logic                   keep_i,
    input  logic                   result_i,
    input  logic                   release_i,
    input  logic [SLOT_WIDTH-1:0]  slot_i,
    input  logic [GROUP_WIDTH-1:0] group_i,
    input  logic [GROUP_WIDTH-1:0] held_group_i,
    // unit buffer
    output logic [SLOT_WIDTH-1:0]  read_slot_o,
    output logic [ENTRY_WIDTH-1:0] read_entry_o,
    // quads and matrix_control
    output logic                   valid_o,
    output logic                   first_o,
    output logic                   last_o,
    output logic                   odd_o,
    output logic                   turn_o,
    output logic                   alone_o,        // both of its mantissas are the one token's
    output logic [7:0][26:0]       pair_o,         // see matrix_lane
    output logic [7:0]             below_o,
    output logic [7:0]             above_o,
    output logic [SETS-1:0][1:0][3:0][11:0] mantissa_o,
    output logic [SETS-1:0][1:0][7:0] exp_o,
    output logic [1:0][17:0]       sum_o,
    output logic                   fresh_o,
    output logic                   load_o,
    output logic                   keep_o,
    output logic                   result_o,
    output logic                   release_o,
    output logic [SLOT_WIDTH-1:0]  slot_o,
    output logic [GROUP_WIDTH-1:0] group_o,
    output logic [GROUP_WIDTH-1:0] held_group_o,
    // a block's result has left the epilogue
    input  logic                   result_free_i,
    // blocks under way
    input  logic                   retire_i,
    output logic                   idle_o
);

  localparam int unsigned COUNT_WIDTH = $clog2(RESULT_BLOCKS + 1);

  logic                   running_q, half_q, half_last, turn_q, turn_last, go, step, slice_last, alone;
  logic [2:0]             slice_q;
  logic [COUNT_WIDTH-1:0] room_q;
  logic [3:0]             under_way_q;

  // A block starts when the operand is there and its result has room; it is then never stopped.
  assign go         = valid_i & (~result_i | (room_q != 0));
  assign step       = running_q | go;
  assign slice_last = narrow_i ? (slice_q[1:0] == 2'd3) : (slice_q == 3'd7);
  assign half_last  = (HALVES == 1) | half_q;
  assign alone      = (SHARE > 1) & single_i & plain_i;
  assign turn_last  = (SHARE == 1) | narrow_i | alone | turn_q;
  assign take_o     = step & turn_last & half_last & slice_last;

  logic [2:0] entry;
  assign entry        = six_i ? {1'b0, slice_q[2:1]} : slice_q;
  assign read_slot_o  = slot_i;
  assign read_entry_o = (HALVES == 1) ? ENTRY_WIDTH'(entry) : ENTRY_WIDTH'({entry, half_q});

  always_ff @(posedge clk_i) begin
    if (step) begin
      running_q <= ~take_o;
      turn_q    <= ~turn_last;
      if (turn_last) half_q <= ~half_q;
      if (turn_last && half_last) slice_q <= slice_last ? '0 : slice_q + 3'd1;
    end
    room_q      <= room_q - COUNT_WIDTH'(take_o & result_i) + COUNT_WIDTH'(result_free_i);
    under_way_q <= under_way_q + 4'(take_o) - 4'(retire_i);
    if (rst_i) begin
      running_q   <= 1'b0;
      half_q      <= 1'b0;
      turn_q      <= 1'b0;
      slice_q     <= '0;
      room_q      <= COUNT_WIDTH'(RESULT_BLOCKS);
      under_way_q <= '0;
    end
  end
  assign idle_o = ~running_q & (under_way_q == 0);

  // Packed weights have one set.
  logic [7:0][11:0] narrow0, narrow1;
  always_comb begin
    for (int k = 0; k < 8; k++) begin
      narrow0[k] = mantissa_i[0][0][{slice_q[1:0], 3'(k)}];
      narrow1[k] = single_i ? '0 : mantissa_i[0][1][{slice_q[1:0], 3'(k)}];
    end
  end

  always_ff @(posedge clk_i) begin
    valid_o <= ~rst_i & step;
    first_o <= (slice_q == 0);
    last_o  <= ~rst_i & step & turn_last & slice_last;
    odd_o   <= slice_q[0];
    turn_o  <= turn_q;
    alone_o <= alone;
    for (int k = 0; k < 8; k++) begin
      pair_o[k]  <= {narrow1[k], 15'd0} + 27'($signed(narrow0[k]));
      below_o[k] <= narrow0[k][11];
      above_o[k] <= ~narrow0[k][11] & (|narrow0[k]);
    end
    for (int s = 0; s < int'(SETS); s++) begin
      for (int kk = 0; kk < 4; kk++) begin
        mantissa_o[s][0][kk] <= mantissa_i[s][0][{slice_q, 2'(kk)}];
        mantissa_o[s][1][kk] <= mantissa_i[s][alone?0:1][{slice_q, 2'(kk)}];
        if (single_i && !alone) mantissa_o[s][1][kk] <= '0;
      end
      exp_o[s] <= {single_i ? 8'd0 : exp_i[s][1], exp_i[s][0]};
    end
    sum_o        <= {single_i ? 18'd0 : sum_i[1], sum_i[0]};
    fresh_o      <= fresh_i;
    load_o       <= load_i;
    keep_o       <= keep_i;
    result_o     <= result_i;
    release_o    <= release_i;
    slot_o       <= slot_i;
    group_o      <= group_i;
    held_group_o <= held_group_i;
  end

endmodule
