// value = reciprocal(x), or rsqrt(x) where root_i is set, by the table unit of doc/numerics.md section 7.
// Fully pipelined; the result is valid fp_pkg::TABLE_LATENCY cycles after its operand.
module root_unit (
    input  logic        clk_i,
    input  logic        root_i,
    input  logic [31:0] x_i,
    output logic [31:0] value_o
);

  // 1: x = 1.m * 2^E; a subnormal is normalised.
  fp_pkg::fp32_t     x;
  logic [23:0]       sig, normal;
  logic [5:0]        zeros;
  logic signed [8:0] exponent;
  assign x        = fp_pkg::finite(x_i);
  assign sig      = {x.exp != 0, x.frac};
  assign zeros    = fp_pkg::clz32({sig, 8'hff});
  assign normal   = sig << zeros;
  assign exponent = $signed({1'b0, x.exp | 8'(x.exp == 0)}) - 9'sd127 - $signed({3'd0, zeros});

  logic              root1_q, valid1_q, valid2_q, valid3_q, valid4_q;
  logic [22:0]       m1_q;
  logic signed [8:0] exp1_q, exp2_q, exp3_q, exp4_q;

  // 2: the two points of the table that root and an odd exponent choose; the exponent of the result (of 2^23, for
  // the largest point). An odd E is lowered by one, which its arithmetic shift does by itself.
  logic        odd;
  logic [8:0]  index;
  logic [23:0] point2_q, next2_q, mantissa;
  logic [14:0] fraction2_q;
  assign odd   = exp1_q[0];
  assign index = {1'b0, m1_q[22:15]};

  always_ff @(posedge clk_i) begin
    root1_q  <= root_i;
    valid1_q <= !x.sign && sig != 0;
    m1_q     <= normal[22:0];
    exp1_q   <= exponent;

    if (!root1_q) begin
      point2_q <= dlavm_tables_pkg::RECIP[index];
      next2_q  <= dlavm_tables_pkg::RECIP[index+9'd1];
    end else if (odd) begin
      point2_q <= dlavm_tables_pkg::RSQRT1[index];
      next2_q  <= dlavm_tables_pkg::RSQRT1[index+9'd1];
    end else begin
      point2_q <= dlavm_tables_pkg::RSQRT0[index];
      next2_q  <= dlavm_tables_pkg::RSQRT0[index+9'd1];
    end
    fraction2_q <= m1_q[14:0];
    valid2_q    <= valid1_q;
    exp2_q      <= root1_q ? -(exp1_q >>> 1) : -exp1_q;

    valid3_q <= valid2_q;
    exp3_q   <= exp2_q;
    valid4_q <= valid3_q;
    exp4_q   <= exp3_q;
  end

  // 3, 4: between the points.
  interp #(.F(15)) u_interp (
      .clk_i, .point_i(point2_q), .next_i(next2_q), .fraction_i(fraction2_q), .value_o(mantissa));

  // 5: mantissa * 2^(exp - 23). It is in (2^22, 2^23]; only a reciprocal leaves the normal numbers, by two places at most.
  logic signed [9:0] exp, deficit;
  logic [25:0]       aligned;
  assign exp     = 10'(exp4_q) + 10'sd126 + $signed({9'd0, mantissa[23]});
  assign deficit = 10'sd1 - exp;
  assign aligned = {mantissa[23] ? mantissa : mantissa << 1, 2'd0} >> ((deficit > 0) ? deficit[1:0] : 2'd0);

  always_ff @(posedge clk_i) begin
    value_o <= valid4_q ? fp_pkg::round_pack(1'b0, (deficit > 0) ? 9'd1 : exp[8:0], aligned[25:2], aligned[1], aligned[0])
                        : {1'b0, fp_pkg::MAX_FINITE};
  end

  logic unused_hidden;
  assign unused_hidden = normal[23];

endmodule
