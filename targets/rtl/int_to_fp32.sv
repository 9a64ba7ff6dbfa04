// value = rn(int * 2^exp). Fully pipelined; the result is valid fp_pkg::INT_LATENCY cycles after its operands.
//
// The matrix engine multiplies by the power of two here, where it costs one small adder, not after the scale as
// doc/numerics.md writes it. The bits are the same because nothing in between can become subnormal or saturate:
// block exponents are -68..18, integers below 2^34 (35 bits with sign) and scales between 2^-40 and 2^40.
module int_to_fp32 #(
    parameter int unsigned WIDTH = 20,  // up to 40
    parameter int unsigned EXP_WIDTH = 8
) (
    input  logic                        clk_i,
    input  logic signed [WIDTH-1:0]     int_i,
    input  logic signed [EXP_WIDTH-1:0] exp_i,  // the result's exponent must stay in the range of normal numbers
    output logic [31:0]                 value_o
);

  // 1: magnitude. WIDTH bits hold that of the most negative integer too.
  logic                        sign1_q, sign2_q;
  logic [WIDTH-1:0]            magnitude1_q;
  logic signed [EXP_WIDTH-1:0] exp1_q;

  always_ff @(posedge clk_i) begin
    sign1_q      <= int_i[WIDTH-1];
    magnitude1_q <= int_i[WIDTH-1] ? -int_i : int_i;
    exp1_q       <= exp_i;
  end

  // 2: normalise. The top 32 bits find the shift; what a wider integer has below them takes 8 places at once.
  localparam int unsigned WIDE = (WIDTH > 32) ? 40 : 32;
  logic [WIDE-1:0] wide, coarse, normal2_q;
  logic [5:0]      zeros;
  logic            byte_shift;
  logic [8:0]      exp2_q;
  assign wide = {magnitude1_q, {(WIDE - WIDTH) {1'b0}}};
  if (WIDTH > 32) begin : g_wide
    assign byte_shift = (wide[WIDE-1-:8] == 0);
    assign coarse     = byte_shift ? wide << 8 : wide;
  end else begin : g_narrow
    assign byte_shift = 1'b0;
    assign coarse     = wide;
  end
  assign zeros = fp_pkg::clz32(coarse[WIDE-1-:32]);

  always_ff @(posedge clk_i) begin
    sign2_q   <= sign1_q;
    normal2_q <= coarse << zeros;
    exp2_q    <= 9'(127 + WIDTH - 1) + 9'(exp1_q) - 9'(zeros) - {5'd0, byte_shift, 3'd0};
  end

  // 3: round; up to 24 bits are exact and the adder disappears.
  always_ff @(posedge clk_i) begin
    value_o <= fp_pkg::round_pack(sign2_q, exp2_q, normal2_q[WIDE-1-:24], normal2_q[WIDE-25], |normal2_q[WIDE-26:0]);
  end

endmodule
