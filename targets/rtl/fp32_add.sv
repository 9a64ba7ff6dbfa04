// sum = rn(a + b), doc/numerics.md section 1. Fully pipelined; the result is valid fp_pkg::ADD_LATENCY cycles after its operands.
// The latency is short on purpose: an accumulator of the matrix engine is due again after 4 cycles (two beats a
// cycle) or 8 (one beat), see matrix_quad.
module fp32_add (
    input  logic        clk_i,
    input  logic [31:0] a_i,
    input  logic [31:0] b_i,
    output logic [31:0] sum_o
);

  // 1: order by magnitude, so that the difference below is never negative.
  fp_pkg::fp32_t a, b, big, small_;
  logic          swap;
  assign a      = fp_pkg::finite(a_i);
  assign b      = fp_pkg::finite(b_i);
  assign swap   = a[30:0] < b[30:0];
  assign big    = swap ? b : a;
  assign small_ = swap ? a : b;

  logic        sign1_q, subtract1_q;
  logic [7:0]  exp1_q, distance1_q;
  logic [23:0] big1_q, small1_q;

  // A subnormal has the weight of exponent 1 and no hidden bit. Both differences are formed beside the comparison.
  logic [7:0] a_exp, b_exp;
  assign a_exp = a.exp | 8'(a.exp == 0);
  assign b_exp = b.exp | 8'(b.exp == 0);

  always_ff @(posedge clk_i) begin
    sign1_q     <= big.sign;
    subtract1_q <= big.sign ^ small_.sign;
    exp1_q      <= swap ? b_exp : a_exp;
    distance1_q <= swap ? b_exp - a_exp : a_exp - b_exp;
    big1_q      <= {big.exp != 0, big.frac};
    small1_q    <= {small_.exp != 0, small_.frac};
  end

  // 2: align. Three bits below the significand (guard, round, sticky) are enough to round correctly.
  logic        sign2_q, subtract2_q;
  logic [7:0]  exp2_q;
  logic [23:0] big2_q;
  logic [26:0] small2_q;
  logic [4:0]  shift;
  assign shift = (distance1_q > 8'd31) ? 5'd31 : distance1_q[4:0];

  always_ff @(posedge clk_i) begin
    sign2_q     <= sign1_q;
    subtract2_q <= subtract1_q;
    exp2_q      <= exp1_q;
    big2_q      <= big1_q;
    small2_q    <= 27'(fp_pkg::shift_right_sticky({5'd0, small1_q, 3'd0}, shift));
  end

  // 3: add. An exact cancellation gives +0.
  logic        sign3_q;
  logic [7:0]  exp3_q;
  logic [27:0] sum, sum3_q;
  logic [4:0]  shift3_q;
  logic [5:0]  zeros;
  assign sum   = subtract2_q ? {1'b0, big2_q, 3'd0} - {1'b0, small2_q} : {1'b0, big2_q, 3'd0} + {1'b0, small2_q};
  assign zeros = fp_pkg::clz32({sum, 4'hf});

  always_ff @(posedge clk_i) begin
    sign3_q  <= sign2_q & ~(subtract2_q & (sum == 0));
    exp3_q   <= exp2_q;
    sum3_q   <= sum;
    // Not past exponent 1: from there on the result is subnormal.
    shift3_q <= ({2'd0, zeros} > exp2_q) ? exp2_q[4:0] : zeros[4:0];
  end

  // 4: normalise and round.
  logic [27:0] normal;
  assign normal = sum3_q << shift3_q;

  always_ff @(posedge clk_i) begin
    sum_o <= fp_pkg::round_pack(sign3_q, 9'(exp3_q) + 9'd1 - 9'(shift3_q), normal[27:4], normal[3], |normal[2:0]);
  end

endmodule
