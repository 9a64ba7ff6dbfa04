// The integer part of a row: 8 INT4 weights x 8 mantissas of two tokens in a cycle, summed over 4 such steps to the
// exact dot product of a block of 32. A lane may serve ROWS rows that take turns step by step (the order in which
// a channel delivers them). Its result is valid fp_pkg::LANE_LATENCY cycles after a block's last step.
//
// Two tokens share a multiplier: (m1 * 2^SPACING + m0) * w holds both products, because |m * w| <= 2047 * 8 fits
// SPACING = 15 bits with sign and the packed pair 27 bits, one side of a 27x18 multiplier. The pair is formed once
// for all lanes (matrix_slice), not here.
module matrix_lane #(
    parameter int unsigned ACT_BITS = 12,
    parameter int unsigned ROWS = 2,
    localparam int unsigned SPACING = ACT_BITS + 3,
    localparam int unsigned PAIR_WIDTH = ACT_BITS + SPACING,
    localparam int unsigned DOT_WIDTH = ACT_BITS + 8
) (
    input  logic                           clk_i,
    input  logic                           valid_i,
    input  logic                           first_i,   // a block's first step
    input  logic [7:0][3:0]                weight_i,  // w + 8, as in memory
    input  logic [7:0][PAIR_WIDTH-1:0]     pair_i,
    output logic [1:0][DOT_WIDTH-1:0]      dot_o      // by token, two's complement
);

  logic [2:0] valid_q, first_q;
  always_ff @(posedge clk_i) begin
    valid_q <= {valid_q[1:0], valid_i};
    first_q <= {first_q[1:0], first_i};
  end

  // 1, 2: w + 8 -> w flips the top bit; multiply.
  logic [7:0][3:0]            weight_q;
  logic [7:0][PAIR_WIDTH-1:0] pair_q;
  logic [7:0][PAIR_WIDTH+3:0] product_q;
  always_ff @(posedge clk_i) begin
    pair_q <= pair_i;
    for (int k = 0; k < 8; k++) begin
      weight_q[k]  <= weight_i[k] ^ 4'h8;
      product_q[k] <= $signed({{4{pair_q[k][PAIR_WIDTH-1]}}, pair_q[k]}) * $signed(weight_q[k]);
    end
  end

  // 3: take the pair apart. The upper product lacks one where the lower is negative.
  logic signed [DOT_WIDTH-1:0] low, high;
  logic signed [DOT_WIDTH-1:0] sum_q [2];
  always_comb begin
    low  = '0;
    high = '0;
    for (int k = 0; k < 8; k++) begin
      low  = low + DOT_WIDTH'($signed(product_q[k][SPACING-1:0]));
      high = high + DOT_WIDTH'($signed(product_q[k][2*SPACING-1:SPACING])) + DOT_WIDTH'(product_q[k][SPACING-1]);
    end
  end

  // 4: accumulate; with two rows the one that is due is always the older one.
  logic signed [DOT_WIDTH-1:0] dot_q [2][ROWS];
  always_ff @(posedge clk_i) begin
    sum_q[0] <= low;
    sum_q[1] <= high;
    if (valid_q[2]) begin
      for (int t = 0; t < 2; t++) begin
        dot_q[t][0] <= (first_q[2] ? '0 : dot_q[t][ROWS-1]) + sum_q[t];
        for (int r = 1; r < int'(ROWS); r++) dot_q[t][r] <= dot_q[t][r-1];
      end
    end
  end

  assign dot_o[0] = dot_q[0][0];
  assign dot_o[1] = dot_q[1][0];

endmodule
