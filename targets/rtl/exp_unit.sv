// value = 2^t for t = rn(x * log2e) <= 0: exp of doc/numerics.md section 7 behind its multiplication. For a positive t the
// value means nothing. Fully pipelined; the result is valid fp_pkg::TABLE_LATENCY cycles after its operand.
module exp_unit (
    input  logic        clk_i,
    input  logic [31:0] t_i,
    output logic [31:0] value_o
);

  localparam logic [22:0] MOST = 23'd40 << 16;  // q is clamped at -40 * 2^16

  // 1: |t| * 2^16 with two more bits (guard, sticky). From 64 on it is clamped whatever the bits are.
  localparam logic [7:0] SIXTY_FOUR = 8'd133;
  fp_pkg::fp32_t t;
  logic [7:0]    distance;
  logic          large1_q;
  logic [24:0]   fixed1_q;
  assign t        = fp_pkg::finite(t_i);
  assign distance = SIXTY_FOUR + 8'd1 - t.exp;

  always_ff @(posedge clk_i) begin
    large1_q <= t.exp >= SIXTY_FOUR;
    fixed1_q <= 25'(fp_pkg::shift_right_sticky({6'd0, t.exp != 0, t.frac, 2'd0},
                                               (distance > 8'd31) ? 5'd31 : distance[4:0]));
  end

  // 2: round, clamp, negate.
  logic        up;
  logic [22:0] magnitude;
  logic [22:0] q2_q;  // two's complement
  assign up        = fixed1_q[1] & (fixed1_q[0] | fixed1_q[2]);
  assign magnitude = fixed1_q[24:2] + 23'(up);

  always_ff @(posedge clk_i) q2_q <= -((large1_q || magnitude > MOST) ? MOST : magnitude);

  // 3: the two points. 4, 5: between them.
  logic [23:0] point3_q, next3_q, mantissa;
  logic [7:0]  fraction3_q;
  logic [6:0]  whole3_q, whole4_q, whole5_q;

  always_ff @(posedge clk_i) begin
    point3_q    <= dlavm_tables_pkg::EXP[9'(q2_q[15:8])];
    next3_q     <= dlavm_tables_pkg::EXP[9'(q2_q[15:8]) + 9'd1];
    fraction3_q <= q2_q[7:0];
    whole3_q    <= q2_q[22:16];
    whole4_q    <= whole3_q;
    whole5_q    <= whole4_q;
  end

  interp #(.F(8)) u_interp (
      .clk_i, .point_i(point3_q), .next_i(next3_q), .fraction_i(fraction3_q), .value_o(mantissa));

  // The mantissa is in [2^22, 2^23): its leading one is the hidden bit.
  assign value_o = {1'b0, 8'd127 + {whole5_q[6], whole5_q}, mantissa[21:0], 1'b0};
  logic unused_bits;
  assign unused_bits = &{1'b0, t.sign, mantissa[23:22]};

endmodule
