// One block of 32 fp16 values, each times a power of two of its own -> mantissas of 12 or 8 bits that share an exponent
// (doc/numerics.md, sections 2 and 3), and their sum, which zero points need. A block may enter every cycle; it
// leaves LATENCY cycles later. The powers are those of the tokens' values in the KV cache, else 0.
module activation_quantizer #(
    localparam int unsigned BLOCK = 32,
    localparam int unsigned LATENCY = fp_pkg::BLOCK_LATENCY
) (
    input  logic                     clk_i,
    input  logic                     rst_i,
    input  logic                     eight_i,     // mantissas of 8 bits; steady while blocks are under way
    input  logic                     valid_i,
    input  logic [BLOCK-1:0][15:0]   x_i,
    input  logic [BLOCK-1:0][7:0]    power_i,     // signed
    output logic                     valid_o,
    output logic [BLOCK-1:0][11:0]   mantissa_o,  // two's complement
    output logic signed [7:0]        exp_o,       // x is about mantissa * 2^exp
    output logic signed [17:0]       sum_o
);

  // An exponent as a number from 1 on, so that 0 is the exponent of a zero: 2^-100 has 28.
  localparam int unsigned BIAS = 128;
  localparam logic [7:0] ZERO_BLOCK = 8'(BIAS - 24);

  logic [LATENCY-1:0] valid_q;
  assign valid_o = valid_q[LATENCY-1];
  always_ff @(posedge clk_i) valid_q <= rst_i ? '0 : {valid_q[LATENCY-2:0], valid_i};

  function automatic logic [7:0] larger(input logic [7:0] a, input logic [7:0] b);
    larger = (a > b) ? a : b;
  endfunction

  // 3: of four, 4: of all, 5: none is the exponent of a block of zeros.
  logic [BLOCK-1:0][7:0] rank2_q, rank3_q, rank4_q;
  logic [7:0][7:0]       max3_q;
  logic [7:0]            max4, max4_q, top_q;
  always_comb begin
    max4 = '0;
    for (int g = 0; g < 8; g++) max4 = larger(max4, max3_q[g]);
  end
  logic signed [7:0] exp6_q, exp7_q, exp8_q;
  always_ff @(posedge clk_i) begin
    for (int g = 0; g < 8; g++)
      max3_q[g] <= larger(larger(rank2_q[4*g], rank2_q[4*g+1]), larger(rank2_q[4*g+2], rank2_q[4*g+3]));
    rank3_q <= rank2_q;
    rank4_q <= rank3_q;
    max4_q  <= max4;
    top_q   <= (max4_q == 0) ? ZERO_BLOCK : max4_q;
    exp6_q  <= $signed(top_q - 8'(BIAS) - (eight_i ? 8'd6 : 8'd10));
    exp7_q  <= exp6_q;
    exp8_q  <= exp7_q;
    exp_o   <= exp8_q;
  end

  logic [BLOCK-1:0][11:0] mantissa7_q, mantissa8_q;
  for (genvar i = 0; i < int'(BLOCK); i++) begin : g_element
    // 1: exponent 31 reads as 65504. 2: a subnormal is normalised; its exponent.
    logic [15:0] x1_q;
    logic [7:0]  power1_q;
    logic [5:0]  zeros;
    logic [10:0] sig2_q, sig3_q, sig4_q, sig5_q;
    logic        sign2_q, sign3_q, sign4_q, sign5_q, sign6_q;
    logic [7:0]  rank5_q, shift;
    logic [12:0] aligned6_q;  // 11 bits, guard, sticky
    assign zeros = fp_pkg::clz32({x1_q[9:0], 22'h3f_ffff});

    always_ff @(posedge clk_i) begin
      x1_q     <= (x_i[i][14:10] == 5'd31) ? {x_i[i][15], 15'h7bff} : x_i[i];
      power1_q <= power_i[i];

      sign2_q <= x1_q[15];
      if (x1_q[14:10] != 0) begin
        sig2_q     <= {1'b1, x1_q[9:0]};
        rank2_q[i] <= 8'(BIAS - 15) + 8'(x1_q[14:10]) + power1_q;
      end else begin
        sig2_q     <= 11'({1'b0, x1_q[9:0]} << (zeros + 6'd1));
        rank2_q[i] <= (x1_q[9:0] == 0) ? '0 : 8'(BIAS - 15) - 8'(zeros) + power1_q;
      end

      {sign3_q, sig3_q} <= {sign2_q, sig2_q};
      {sign4_q, sig4_q} <= {sign3_q, sig3_q};
      {sign5_q, sig5_q} <= {sign4_q, sig4_q};
      rank5_q           <= rank4_q[i];

      // 6: align
      sign6_q    <= sign5_q;
      aligned6_q <= 13'(fp_pkg::shift_right_sticky({19'd0, sig5_q, 2'd0}, (shift > 8'd31) ? 5'd31 : shift[4:0]));
    end
    assign shift = top_q - rank5_q + (eight_i ? 8'd4 : 8'd0);

    // 7: round to nearest even, clamp, negate.
    logic        up;
    logic [11:0] rounded, magnitude, limit;
    assign limit     = eight_i ? 12'd127 : 12'd2047;
    assign up        = aligned6_q[1] & (aligned6_q[0] | aligned6_q[2]);
    assign rounded   = 12'(aligned6_q[12:2]) + 12'(up);
    assign magnitude = (rounded > limit) ? limit : rounded;
    always_ff @(posedge clk_i) mantissa7_q[i] <= sign6_q ? -magnitude : magnitude;
  end

  // 8, 9: their sum.
  logic signed [14:0] sum8 [4], sum8_q [4];
  always_comb begin
    for (int g = 0; g < 4; g++) begin
      sum8[g] = '0;
      for (int i = 0; i < 8; i++) sum8[g] = sum8[g] + 15'($signed(mantissa7_q[8*g+i]));
    end
  end
  always_ff @(posedge clk_i) begin
    for (int g = 0; g < 4; g++) sum8_q[g] <= sum8[g];
    mantissa8_q <= mantissa7_q;
    mantissa_o  <= mantissa8_q;
    sum_o       <= (18'(sum8_q[0]) + 18'(sum8_q[1])) + (18'(sum8_q[2]) + 18'(sum8_q[3]));
  end

endmodule
