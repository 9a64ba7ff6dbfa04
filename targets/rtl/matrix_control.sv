// Counts for all quads of the matrix engine: when lanes end a block, which row passes through the fp32 pipelines,
// where its accumulator stands. A block's rows follow each other without a gap.
//
// There is no way to stop it: whoever starts a block has room for its results.
module matrix_control #(
    parameter int unsigned HALVES = 2,
    parameter int unsigned LINES = 2048,
    parameter int unsigned SLOT_WIDTH = 3,
    parameter int unsigned SETS = 1,  // of exponents (activation_feed)
    localparam int unsigned ROWS = 4 * HALVES,
    localparam int unsigned ROW_WIDTH = $clog2(ROWS),
    localparam int unsigned LINE_WIDTH = $clog2(LINES),
    localparam int unsigned GROUP_WIDTH = LINE_WIDTH - ROW_WIDTH  // a line is a group (tile, pair of tokens) and a row
) (
    input  logic                   clk_i,
    input  logic                   rst_i,
    // the last step of a half, beside the quads' valid_i; what follows belongs to the block
    input  logic                   last_i,
    input  logic                   alone_i,        // of one token where lanes share (matrix_quad)
    input  logic                   fresh_i,        // starts from +0,
    input  logic                   load_i,         // from those held for it, or from this command's
    input  logic                   keep_i,         // leaves them for the next command
    input  logic                   result_i,       // gives the result
    input  logic                   release_i,      // the unit's last block
    input  logic [SLOT_WIDTH-1:0]  slot_i,         // of the unit
    input  logic [GROUP_WIDTH-1:0] group_i,        // of the accumulators of this command
    input  logic [GROUP_WIDTH-1:0] held_group_i,   // of those held
    input  logic [SETS-1:0][1:0][7:0] exp_i,
    input  logic [1:0][17:0]       sum_i,
    // to the unit buffer
    output logic [SLOT_WIDTH-1:0]  slot_o,         // whose metadata is wanted now
    output logic                   release_o,      // the unit is done with
    // to the quads
    output logic [HALVES-1:0]      capture_o,
    output logic                   of_one_o,
    output logic [ROW_WIDTH-1:0]   row_o,
    output logic [1:0][17:0]       sum_o,
    output logic [SETS-1:0][1:0][7:0] exp_o,
    output logic                   read_held_o,
    output logic [LINE_WIDTH-1:0]  read_line_o,
    output logic                   fresh_o,
    output logic                   bypass_o,
    output logic                   bypass_last_o,
    output logic                   write_o,
    output logic                   write_held_o,
    output logic [LINE_WIDTH-1:0]  write_line_o,
    // results, as the quads' sums leave
    output logic                   result_o,
    output logic [ROW_WIDTH-1:0]   result_row_o,
    output logic                   retire_o        // a block's last row has been written
);

  // A row is issued; its term comes TERM cycles later, its sum SUM cycles later.
  localparam int unsigned TERM = 2 + fp_pkg::INT_LATENCY + fp_pkg::MUL_LATENCY;
  localparam int unsigned SUM = TERM + fp_pkg::ADD_LATENCY;
  localparam int unsigned LANE = fp_pkg::LANE_LATENCY;

  // beside the lanes
  logic [LANE-1:0] done_q;
  logic            done, fresh, load, keep, result, release_unit;
  logic [GROUP_WIDTH-1:0] group, held_group;
  logic [SETS-1:0][1:0][7:0] exp;
  logic [1:0][17:0] sum;
  always_ff @(posedge clk_i) done_q <= rst_i ? '0 : {done_q[LANE-2:0], last_i};
  assign done = done_q[LANE-1];
  delay_line #(.WIDTH(6 + SLOT_WIDTH + 2 * GROUP_WIDTH + 16 * SETS + 36), .CYCLES(LANE)) u_beside_lane (
      .clk_i,
      .value_i({alone_i, fresh_i, load_i, keep_i, result_i, release_i, slot_i, group_i, held_group_i, exp_i, sum_i}),
      .value_o({of_one_o, fresh, load, keep, result, release_unit, slot_o, group, held_group, exp, sum}));

  // the block whose rows are on their way
  logic [HALVES-1:0]    full_q;
  logic [ROW_WIDTH-1:0] row_q;
  logic                 half_in, half_out, issue;
  logic                 fresh_q, load_q, keep_q, result_q;
  logic [GROUP_WIDTH-1:0] group_q, held_group_q;

  if (HALVES == 2) begin : g_two
    logic half_q;
    always_ff @(posedge clk_i) half_q <= ~rst_i & (half_q ^ done);
    assign half_in   = half_q;
    assign half_out  = row_q[ROW_WIDTH-1];
    assign capture_o = {done & half_q, done & ~half_q};
    assign release_o = done & half_q & release_unit;
  end else begin : g_one
    assign half_in   = 1'b0;
    assign half_out  = 1'b0;
    assign capture_o = done;
    assign release_o = done & release_unit;
  end
  assign issue = full_q[half_out];
  assign row_o = row_q;

  always_ff @(posedge clk_i) begin
    if (issue && row_q[1:0] == 2'd3) full_q[half_out] <= 1'b0;
    if (issue) row_q <= row_q + 1'b1;
    if (done) full_q[half_in] <= 1'b1;
    if (done && !half_in) begin
      {fresh_q, load_q, keep_q, result_q} <= {fresh, load, keep, result};
      group_q      <= group;
      held_group_q <= held_group;
      exp_o        <= exp;
      sum_o        <= sum;
    end
    if (rst_i) begin
      full_q <= '0;
      row_q  <= '0;
    end
  end

  // beside the fp32 pipelines: what a row was issued with
  logic                  read_result, read_write_held, read_fresh, term_result, term_write_held, sum_result;
  logic [LINE_WIDTH-1:0] read_write_line, term_write_line;
  logic [SUM:1]          valid_q;
  always_ff @(posedge clk_i) valid_q <= rst_i ? '0 : {valid_q[SUM-1:1], issue};
  delay_line #(.WIDTH(4 + 2 * LINE_WIDTH), .CYCLES(TERM - 1)) u_to_read (
      .clk_i,
      .value_i({fresh_q, load_q, load_q ? held_group_q : group_q, row_q,
                result_q, keep_q, keep_q ? held_group_q : group_q, row_q}),
      .value_o({read_fresh, read_held_o, read_line_o, read_result, read_write_held, read_write_line}));
  delay_line #(.WIDTH(3 + LINE_WIDTH), .CYCLES(1)) u_to_term (
      .clk_i,
      .value_i({read_fresh, read_result, read_write_held, read_write_line}),
      .value_o({fresh_o, term_result, term_write_held, term_write_line}));
  delay_line #(.WIDTH(2 + LINE_WIDTH), .CYCLES(fp_pkg::ADD_LATENCY)) u_to_sum (
      .clk_i,
      .value_i({term_result, term_write_held, term_write_line}),
      .value_o({sum_result, write_held_o, write_line_o}));

  assign write_o      = valid_q[SUM];
  assign result_o     = valid_q[SUM] & sum_result;
  assign result_row_o = write_line_o[ROW_WIDTH-1:0];
  assign retire_o     = valid_q[SUM] & (&write_line_o[ROW_WIDTH-1:0]);

  // The sum that a row needs may leave the adder in the very cycle in which its next term comes, or have been written
  // in the cycle in which the memory was read. Both are decided a cycle ahead: the way from the sum back into the
  // adder is the longest there is.
  logic                  next_held;
  logic [LINE_WIDTH-1:0] next_line;
  delay_line #(.WIDTH(1 + LINE_WIDTH), .CYCLES(fp_pkg::ADD_LATENCY - 1)) u_to_next_sum (
      .clk_i, .value_i({term_write_held, term_write_line}), .value_o({next_held, next_line}));
  always_ff @(posedge clk_i) begin
    bypass_o      <= valid_q[SUM-1] & ({next_held, next_line} == {read_held_o, read_line_o});
    bypass_last_o <= write_o & ({write_held_o, write_line_o} == {read_held_o, read_line_o});
  end

endmodule
