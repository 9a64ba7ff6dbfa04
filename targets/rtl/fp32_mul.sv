// product = rn(a * b), doc/numerics.md section 1. Fully pipelined; the result is valid fp_pkg::MUL_LATENCY cycles after its operands.
module fp32_mul #(
    // Bits of b's significand that can be set, from the top. 11 (an fp16 value) needs one 27x18 multiplier, 24 two.
    parameter int unsigned B_SIG = 24,
    // 0 leaves out the shifters for subnormal operands and results: the caller knows that there are none.
    parameter bit SUBNORMALS = 1'b1
) (
    input  logic        clk_i,
    input  logic [31:0] a_i,
    input  logic [31:0] b_i,
    output logic [31:0] product_o
);

  // 1: unpack. A subnormal operand is normalised.
  fp_pkg::fp32_t a, b;
  assign a = fp_pkg::finite(a_i);
  assign b = fp_pkg::finite(b_i);

  logic [23:0] a_sig, b_sig, a_normal, b_normal;
  logic [5:0]  a_zeros, b_zeros;
  assign a_sig = {a.exp != 0, (a.exp != 0 || SUBNORMALS) ? a.frac : 23'd0};
  assign b_sig = {b.exp != 0, (b.exp != 0 || SUBNORMALS) ? b.frac : 23'd0};

  if (SUBNORMALS) begin : g_normalise
    assign a_zeros  = fp_pkg::clz32({a_sig, 8'hff});
    assign b_zeros  = fp_pkg::clz32({b_sig, 8'hff});
    assign a_normal = a_sig << a_zeros;
    assign b_normal = b_sig << b_zeros;
  end else begin : g_as_is
    assign a_zeros  = '0;
    assign b_zeros  = '0;
    assign a_normal = a_sig;
    assign b_normal = b_sig;
  end

  logic              sign1_q, sign2_q, sign3_q, sign4_q;
  logic [8:0]        exp1_q;
  logic [5:0]        a_zeros1_q, b_zeros1_q;
  logic signed [9:0] exp2_q, exp3_q;
  logic [23:0]       a1_q;
  logic [B_SIG-1:0]  b1_q;

  // 2, 3: multiply; two registers, so that a multiplier block can use its own. Beside it the exponent, which goes
  // below 1 for a subnormal operand.
  logic [23+B_SIG:0] product2_q, product3_q;

  always_ff @(posedge clk_i) begin
    sign1_q    <= a.sign ^ b.sign;
    exp1_q     <= 9'(a.exp | 8'(a.exp == 0)) + 9'(b.exp | 8'(b.exp == 0));
    a_zeros1_q <= a_zeros;
    b_zeros1_q <= b_zeros;
    a1_q       <= a_normal;
    b1_q       <= B_SIG'(b_normal >> (24 - B_SIG));

    sign2_q    <= sign1_q;
    exp2_q     <= $signed({1'b0, exp1_q}) - $signed({4'b0, a_zeros1_q}) - $signed({4'b0, b_zeros1_q}) - 10'sd127;
    product2_q <= a1_q * b1_q;

    sign3_q    <= sign2_q;
    exp3_q     <= exp2_q;
    product3_q <= product2_q;
  end

  // 4: the product of two numbers in [1, 2) is in [1, 4); then denormalise where the exponent fell below 1.
  logic [47:0]       product, normal;
  logic signed [9:0] exp, deficit;
  logic [25:0]       sig, sig4_q;  // 24 bits, guard, sticky
  logic [8:0]        exp4_q;
  assign product = {product3_q, {(24 - B_SIG) {1'b0}}};
  assign normal  = product[47] ? product : product << 1;
  assign exp     = exp3_q + $signed({9'd0, product[47]});
  assign deficit = 10'sd1 - exp;

  if (SUBNORMALS) begin : g_denormalise
    logic [4:0] shift;
    assign shift = (deficit <= 0) ? 5'd0 : (deficit > 10'sd31) ? 5'd31 : deficit[4:0];
    assign sig   = 26'(fp_pkg::shift_right_sticky({6'd0, normal[47:23], |normal[22:0]}, shift));
  end else begin : g_normal_only
    assign sig = {normal[47:23], |normal[22:0]};
  end

  always_ff @(posedge clk_i) begin
    sign4_q <= sign3_q;
    exp4_q  <= (deficit > 0) ? 9'd1 : exp[8:0];
    sig4_q  <= sig;
  end

  // 5: round.
  always_ff @(posedge clk_i) begin
    product_o <= fp_pkg::round_pack(sign4_q, exp4_q, sig4_q[25:2], sig4_q[1], sig4_q[0]);
  end

endmodule
