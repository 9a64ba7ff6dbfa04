// half = rn16(value), doc/numerics.md section 1: to nearest even, saturating at 65504, subnormals kept.
// Fully pipelined; the result is valid fp_pkg::HALF_LATENCY cycles after its operand.
module fp32_to_fp16 (
    input  logic        clk_i,
    input  logic [31:0] value_i,
    output logic [15:0] half_o
);

  // Biased exponents of fp32: of 2^-14, the smallest normal fp16, and of 2^16, which is past the largest.
  localparam logic [7:0] SMALLEST = 8'd113;
  localparam logic [7:0] PAST = 8'd143;

  // 1: align. What is below 2^-14 moves right to the weight of a subnormal; a one that falls out stays visible.
  fp_pkg::fp32_t x;
  logic [7:0]    below;
  assign x     = fp_pkg::finite(value_i);
  assign below = (x.exp >= SMALLEST) ? 8'd0 : SMALLEST - x.exp;

  logic        sign1_q, past1_q;
  logic [4:0]  exp1_q;
  logic [23:0] sig1_q;

  always_ff @(posedge clk_i) begin
    sign1_q <= x.sign;
    past1_q <= x.exp >= PAST;
    exp1_q  <= (x.exp >= SMALLEST) ? 5'(x.exp - (SMALLEST - 8'd1)) : 5'd0;
    sig1_q  <= 24'(fp_pkg::shift_right_sticky({8'd0, x.exp != 0, x.frac}, (below > 8'd31) ? 5'd31 : below[4:0]));
  end

  // 2: round. The carry runs on into the exponent, from the largest subnormal to the smallest normal as well.
  logic        up;
  logic [14:0] magnitude;
  assign up        = sig1_q[12] & (|sig1_q[11:0] | sig1_q[13]);
  assign magnitude = {exp1_q, sig1_q[22:13]} + 15'(up);

  always_ff @(posedge clk_i) begin
    half_o <= {sign1_q, (past1_q || magnitude >= 15'h7c00) ? 15'h7bff : magnitude};
  end

  // The hidden bit stands for the exponent field.
  logic unused_hidden;
  assign unused_hidden = sig1_q[23];

endmodule
