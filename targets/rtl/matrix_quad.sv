// Four row lanes for two tokens and the fp32 pipeline a token that their rows share (doc/numerics.md, section 3):
//   acc = rn(acc + rn(rn(float(dot) * scale) * 2^e))
// The four lanes end a block in the same cycle; the rows then pass through the pipeline one a cycle. With HALVES = 2
// a lane serves two rows in turn (one beat a cycle, a block takes 8 cycles), with HALVES = 1 one row (two beats a
// cycle, 4 cycles). So a row's accumulator is due again after 4 * HALVES cycles at the earliest, and never later
// than the adder delivers it: fp_pkg::ADD_LATENCY <= 4.
//
// There is no way to stop the pipeline: whoever feeds a tile's last block has room for its rows.
module matrix_quad #(
    parameter int unsigned ACT_BITS = 12,
    parameter int unsigned HALVES = 2,
    localparam int unsigned ROWS = 4 * HALVES,
    localparam int unsigned ROW_WIDTH = $clog2(ROWS),
    localparam int unsigned PAIR_WIDTH = 2 * ACT_BITS + 3,
    localparam int unsigned DOT_WIDTH = ACT_BITS + 8
) (
    input  logic                       clk_i,
    input  logic                       rst_i,
    // A group's scales, by row; not before the last step of the group before, not after the first of this one.
    input  logic                       scale_valid_i,
    input  logic [ROWS-1:0][15:0]      scale_i,
    // A step: 8 k of four rows. With HALVES = 2 rows 0-3 and 4-7 take turns.
    input  logic                       valid_i,
    input  logic                       first_i,        // the block's first step of this row
    input  logic                       last_i,         // and its last
    input  logic                       tile_first_i,   // the block starts from acc = +0 and not from the acc held here,
    input  logic                       tile_last_i,    // gives the result
    input  logic [1:0][7:0]            exp_i,          // of the block, by token
    input  logic [3:0][7:0][3:0]       weight_i,       // by row, k
    input  logic [7:0][PAIR_WIDTH-1:0] pair_i,         // by k
    // The accumulators of a tile, by token; rows ascending.
    output logic                       valid_o,
    output logic [ROW_WIDTH-1:0]       row_o,
    output logic [1:0][31:0]           acc_o
);

  // lanes; what belongs to a step travels beside them
  logic [3:0][1:0][DOT_WIDTH-1:0] lane_dot;
  for (genvar l = 0; l < 4; l++) begin : g_lane
    matrix_lane #(.ACT_BITS(ACT_BITS), .ROWS(HALVES)) u_lane (
        .clk_i, .valid_i, .first_i, .weight_i(weight_i[l]), .pair_i, .dot_o(lane_dot[l]));
  end

  logic [fp_pkg::LANE_LATENCY-1:0] done_q, scale_valid_q;
  always_ff @(posedge clk_i) begin
    done_q        <= rst_i ? '0 : {done_q[fp_pkg::LANE_LATENCY-2:0], valid_i & last_i};
    scale_valid_q <= rst_i ? '0 : {scale_valid_q[fp_pkg::LANE_LATENCY-2:0], scale_valid_i};
  end

  logic                  done, lane_tile_first, lane_tile_last;
  logic [1:0][7:0]       lane_exp;
  logic [ROWS-1:0][15:0] lane_scale;
  assign done = done_q[fp_pkg::LANE_LATENCY-1];
  delay_line #(.WIDTH(2 + 16 + 16 * ROWS), .CYCLES(fp_pkg::LANE_LATENCY)) u_beside_lane (
      .clk_i,
      .value_i({tile_first_i, tile_last_i, exp_i, scale_i}),
      .value_o({lane_tile_first, lane_tile_last, lane_exp, lane_scale}));

  // four rows at once -> one a cycle. The next block's rows cannot arrive before the last of these has gone.
  logic [HALVES-1:0]                          full_q;
  logic [HALVES-1:0][3:0][1:0][DOT_WIDTH-1:0] waiting_q;
  logic [ROW_WIDTH-1:0]                       row_q;
  logic                                       half_in, half_out, issue;
  logic                                       tile_first_q, tile_last_q;
  logic [1:0][7:0]                            exp_q;
  logic [ROWS-1:0][15:0]                      next_scale_q, scale_q;

  if (HALVES == 2) begin : g_two
    logic half_q;
    always_ff @(posedge clk_i) half_q <= ~rst_i & (half_q ^ done);
    assign half_in  = half_q;
    assign half_out = row_q[ROW_WIDTH-1];
  end else begin : g_one
    assign half_in  = 1'b0;
    assign half_out = 1'b0;
  end
  assign issue = full_q[half_out];

  always_ff @(posedge clk_i) begin
    if (issue && row_q[1:0] == 2'd3) full_q[half_out] <= 1'b0;
    if (issue) row_q <= row_q + 1'b1;
    if (scale_valid_q[fp_pkg::LANE_LATENCY-1]) next_scale_q <= lane_scale;
    if (done) begin
      full_q[half_in]    <= 1'b1;
      waiting_q[half_in] <= lane_dot;
      if (!half_in) begin
        tile_first_q <= lane_tile_first;
        tile_last_q  <= lane_tile_last;
        exp_q        <= lane_exp;
        // The rows of the block before may still be on their way out when the next scales come in.
        scale_q      <= next_scale_q;
      end
    end
    if (rst_i) begin
      full_q <= '0;
      row_q  <= '0;
    end
  end

  // float(dot) * 2^e, * scale, + acc
  localparam int unsigned TERM_LATENCY = fp_pkg::INT_LATENCY + fp_pkg::MUL_LATENCY;

  logic [31:0]          scale32, scale32_q;
  logic                 next_first, next_last, term_first_q, term_last_q, next_sum_last, sum_last_q, bypass_q;
  logic [ROW_WIDTH-1:0] next_row, term_row_q, next_sum_row, sum_row_q;
  logic [TERM_LATENCY-1:0]        term_valid_q;
  logic [fp_pkg::ADD_LATENCY-1:0] sum_valid_q;

  fp16_to_fp32 u_scale (.half_i(scale_q[row_q]), .value_o(scale32));
  delay_line #(.WIDTH(32), .CYCLES(fp_pkg::INT_LATENCY)) u_beside_int (
      .clk_i, .value_i(scale32), .value_o(scale32_q));
  delay_line #(.WIDTH(2 + ROW_WIDTH), .CYCLES(TERM_LATENCY - 1)) u_beside_term (
      .clk_i, .value_i({tile_first_q, tile_last_q, row_q}), .value_o({next_first, next_last, next_row}));
  delay_line #(.WIDTH(1 + ROW_WIDTH), .CYCLES(fp_pkg::ADD_LATENCY - 1)) u_beside_sum (
      .clk_i, .value_i({term_last_q, term_row_q}), .value_o({next_sum_last, next_sum_row}));

  // At full rate and HALVES = 1 the sum that a row needs leaves the adder in the very cycle in which its next term
  // comes. That is decided a cycle ahead: the way from the sum back into the adder is the longest there is.
  always_ff @(posedge clk_i) begin
    term_valid_q <= rst_i ? '0 : {term_valid_q[TERM_LATENCY-2:0], issue};
    sum_valid_q  <= rst_i ? '0 : {sum_valid_q[fp_pkg::ADD_LATENCY-2:0], term_valid_q[TERM_LATENCY-1]};
    {term_first_q, term_last_q, term_row_q} <= {next_first, next_last, next_row};
    {sum_last_q, sum_row_q}                 <= {next_sum_last, next_sum_row};
    bypass_q <= sum_valid_q[fp_pkg::ADD_LATENCY-2] & (next_sum_row == next_row);
  end

  for (genvar t = 0; t < 2; t++) begin : g_token
    logic [31:0] dot32, term, acc, sum;
    logic [31:0] acc_q [ROWS];

    int_to_fp32 #(.WIDTH(DOT_WIDTH)) u_int (
        .clk_i, .int_i(waiting_q[half_out][row_q[1:0]][t]), .exp_i(exp_q[t]), .value_o(dot32));
    // 11 significant bits of an fp16 scale; nothing here is ever subnormal (int_to_fp32 says why).
    fp32_mul #(.B_SIG(11), .SUBNORMALS(1'b0)) u_mul (.clk_i, .a_i(dot32), .b_i(scale32_q), .product_o(term));

    always_comb begin
      if (term_first_q) acc = 32'd0;
      else if (bypass_q) acc = sum;
      else acc = acc_q[term_row_q];
    end
    fp32_add u_add (.clk_i, .a_i(acc), .b_i(term), .sum_o(sum));
    always_ff @(posedge clk_i) if (sum_valid_q[fp_pkg::ADD_LATENCY-1]) acc_q[sum_row_q] <= sum;
    assign acc_o[t] = sum;
  end

  assign valid_o = sum_valid_q[fp_pkg::ADD_LATENCY-1] & sum_last_q;
  assign row_o   = sum_row_q;

endmodule
