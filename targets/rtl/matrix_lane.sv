// The integer part of a row: the weights of a slice x mantissas of two tokens in a cycle, summed over a block's slices
// to the exact dot product of 32 terms. A lane may serve ROWS rows that take turns (the order in which a channel
// delivers them). Its result is valid fp_pkg::LANE_LATENCY cycles after a block's last step.
//
// Where a lane works for its neighbour too in the wide way (SHARE = 2), twice as many rows take turns then; the neighbour
// has no wide way (WIDE = 0), about half of a lane's logic. With one token alone (`alone_i`) the second token's multipliers
// take the neighbour's weights, if these need no more than 12 bits: then there is one turn.
//
// Eight multipliers of 27 x 12 bits have two ways to work (weight_decode):
// narrow   8 weights of 4 bits; two tokens share a multiplier: (m1 * 2^15 + m0) * w holds both products. 15 bits have
//          no room for the sign of m0 * w, up to 2047 * 12, so that comes from the factors. The pair is formed once
//          for all lanes, not here.
// wide     4 weights of up to 19 bits, one multiplier a token: 8- and 6-bit formats and the KV cache.
module matrix_lane #(
    parameter int unsigned ROWS = 2,
    parameter int unsigned SHARE = 1,
    parameter bit WIDE = 1'b1,
    localparam int unsigned SPACING = 15,
    localparam int unsigned PAIR_WIDTH = 12 + SPACING,
    localparam int unsigned DOT_WIDTH = 35  // 32 * 2047 * 448 * 2^9 with sign
) (
    input  logic                           clk_i,
    input  logic                           valid_i,
    input  logic                           first_i,      // a block's first step
    input  logic                           narrow_i,     // steady while steps are under way
    input  logic                           alone_i,      // wide, shared: both mantissas are those of one token
    input  logic [7:0][4:0]                weight8_i,    // narrow: by k
    input  logic [3:0][18:0]               weight4_i,    // wide: by k
    input  logic [3:0][11:0]               other4_i,     // the neighbour's, for a token alone
    input  logic [7:0][PAIR_WIDTH-1:0]     pair_i,       // narrow: by k
    input  logic [7:0]                     below_i,      // narrow: by k; m0 < 0,
    input  logic [7:0]                     above_i,      // m0 > 0
    input  logic [1:0][3:0][11:0]          mantissa_i,   // wide: by token, k
    output logic [1:0][DOT_WIDTH-1:0]      dot_o,        // by token, or by lane; two's complement
    output logic [1:0][DOT_WIDTH-1:0]      dot_before_o  // of the step before: shared, the neighbour's comes last
);

  logic [2:0] valid_q, first_q, alone_q;
  logic       alone;
  assign alone = WIDE && (SHARE > 1) && alone_i;
  always_ff @(posedge clk_i) begin
    valid_q <= {valid_q[1:0], valid_i};
    first_q <= {first_q[1:0], first_i};
    alone_q <= {alone_q[1:0], alone};
  end

  // 1, 2: multiply. A wide weight goes to the wide side of the multiplier; numbers 2k and 2k + 1 are the two tokens.
  logic [7:0][PAIR_WIDTH-1:0] a_q;
  logic [7:0][11:0]           b_q;
  logic [7:0]                 negative1_q, negative2_q;  // m0 * w < 0
  logic [7:0][38:0]           product_q;
  always_ff @(posedge clk_i) begin
    negative2_q <= negative1_q;
    for (int k = 0; k < 8; k++) begin
      negative1_q[k] <= weight8_i[k][4] ? above_i[k] : below_i[k] & (weight8_i[k] != 0);
      a_q[k]         <= (narrow_i || !WIDE) ? pair_i[k] : PAIR_WIDTH'($signed(weight4_i[k/2]));
      if (alone && !narrow_i && k % 2 == 1) a_q[k] <= PAIR_WIDTH'($signed(other4_i[k/2]));
      b_q[k]         <= (narrow_i || !WIDE) ? 12'($signed(weight8_i[k])) : mantissa_i[k%2][k/2];
      product_q[k]   <= 39'($signed(a_q[k])) * 39'($signed(b_q[k]));
    end
  end

  // 3: take pairs apart and add. The upper product lacks one where the lower is negative.
  logic signed [19:0]   narrow_sum [2];
  logic signed [31:0]   wide_sum [2];
  logic [DOT_WIDTH-1:0] sum_q [2];
  logic [3:0]           lacking;
  always_comb begin
    lacking = '0;
    for (int t = 0; t < 2; t++) begin
      narrow_sum[t] = '0;
      wide_sum[t]   = '0;
    end
    for (int k = 0; k < 8; k++) begin
      lacking       = lacking + 4'(negative2_q[k]);
      narrow_sum[0] = narrow_sum[0] + 20'($signed({negative2_q[k], product_q[k][SPACING-1:0]}));
      narrow_sum[1] = narrow_sum[1] + 20'($signed(product_q[k][2*SPACING:SPACING]));
      wide_sum[k%2] = wide_sum[k%2] + $signed(product_q[k][31:0]);
    end
    narrow_sum[1] = narrow_sum[1] + $signed({16'd0, lacking});
  end

  // 4: accumulate; of several rows the one that is due is always the oldest one.
  localparam int unsigned TURNS = WIDE ? ROWS * SHARE : ROWS;
  logic [DOT_WIDTH-1:0] dot_q [2][TURNS], due [2];
  always_comb for (int t = 0; t < 2; t++) due[t] = (narrow_i || alone_q[2]) ? dot_q[t][ROWS-1] : dot_q[t][TURNS-1];
  always_ff @(posedge clk_i) begin
    for (int t = 0; t < 2; t++) begin
      sum_q[t] <= (narrow_i || !WIDE) ? DOT_WIDTH'(narrow_sum[t]) : DOT_WIDTH'(wide_sum[t]);
      if (valid_q[2]) begin
        dot_q[t][0] <= (first_q[2] ? '0 : due[t]) + sum_q[t];
        for (int r = 1; r < int'(TURNS); r++) dot_q[t][r] <= dot_q[t][r-1];
      end
    end
  end

  for (genvar t = 0; t < 2; t++) begin : g_token
    assign dot_o[t]        = dot_q[t][0];
    assign dot_before_o[t] = (TURNS > 1) ? dot_q[t][(TURNS > 1) ? 1 : 0] : '0;
  end

  // 27 x 12 bits as a multiplier has them; no format's product needs the top ones.
  logic [7:0] unused_top;
  always_comb for (int k = 0; k < 8; k++) unused_top[k] = &{1'b0, product_q[k][38:32]};

endmodule
