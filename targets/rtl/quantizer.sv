// One block of 32 fp16 values -> 32 signed mantissas that share an exponent (doc/numerics.md, section 2).
// A block may enter every cycle; it leaves LATENCY cycles later.
module quantizer #(
    parameter int unsigned ACT_BITS = 12,  // 12 or 8
    localparam int unsigned BLOCK = 32,
    localparam int unsigned LATENCY = 7
) (
    input  logic                           clk_i,
    input  logic                           rst_i,
    input  logic                           valid_i,
    input  logic [BLOCK-1:0][15:0]         x_i,
    output logic                           valid_o,
    output logic [BLOCK-1:0][ACT_BITS-1:0] mantissa_o,  // two's complement
    output logic signed [7:0]              exp_o        // x is about mantissa * 2^exp
);

  function automatic logic [4:0] max4(input logic [3:0][4:0] x);
    logic [4:0] low, high;
    low  = (x[1] > x[0]) ? x[1] : x[0];
    high = (x[3] > x[2]) ? x[3] : x[2];
    max4 = (high > low) ? high : low;
  endfunction

  logic [LATENCY-1:0] valid_q;
  assign valid_o = valid_q[LATENCY-1];
  always_ff @(posedge clk_i) valid_q <= rst_i ? '0 : {valid_q[LATENCY-2:0], valid_i};

  // 1: exponent 31 reads as 65504. 2-4: the elements wait for the block's exponent.
  logic [BLOCK-1:0][15:0] x1_q, x2_q, x3_q, x4_q;
  always_ff @(posedge clk_i) begin
    for (int i = 0; i < int'(BLOCK); i++) x1_q[i] <= (x_i[i][14:10] == 5'd31) ? {x_i[i][15], 15'h7bff} : x_i[i];
    x2_q <= x1_q;
    x3_q <= x2_q;
    x4_q <= x3_q;
  end

  // 2-4: only the largest exponent field matters. Where it is 0, the block's leading one is that of the OR of
  // all fractions, which is far cheaper than a maximum of 15 bits.
  logic [7:0][4:0] max2_q;
  logic [1:0][4:0] max3_q;
  logic [7:0][9:0] any2_q;
  logic [9:0]      any, any3_q;
  logic [4:0]      max;
  logic [5:0]      zeros;
  logic [5:0]      top4_q;  // E + 25: 1 for 2^-24, 40 for 2^15

  always_comb begin
    any = '0;
    for (int g = 0; g < 8; g++) any = any | any2_q[g];
  end
  assign max   = (max3_q[1] > max3_q[0]) ? max3_q[1] : max3_q[0];
  assign zeros = fp_pkg::clz32({any3_q, 22'h3f_ffff});

  always_ff @(posedge clk_i) begin
    for (int g = 0; g < 8; g++) begin
      max2_q[g] <= max4({x1_q[4*g+3][14:10], x1_q[4*g+2][14:10], x1_q[4*g+1][14:10], x1_q[4*g][14:10]});
      any2_q[g] <= x1_q[4*g+3][9:0] | x1_q[4*g+2][9:0] | x1_q[4*g+1][9:0] | x1_q[4*g][9:0];
    end
    max3_q[0] <= max4(max2_q[3:0]);
    max3_q[1] <= max4(max2_q[7:4]);
    any3_q    <= any;
    if (max != 0) top4_q <= 6'(max) + 6'd10;
    else top4_q <= (any3_q == 0) ? 6'd1 : 6'd10 - zeros;
  end

  logic signed [7:0] exp5_q, exp6_q;
  always_ff @(posedge clk_i) begin
    exp5_q <= $signed({2'd0, top4_q}) - 8'sd23 - 8'(ACT_BITS);
    exp6_q <= exp5_q;
    exp_o  <= exp6_q;
  end

  for (genvar i = 0; i < int'(BLOCK); i++) begin : g_element
    localparam logic [ACT_BITS-2:0] LIMIT = '1;

    // 5: how far right of the block's exponent this element stands. 6: align. The significand starts 10 places up,
    // so that one right shifter also serves blocks of subnormals, which move left.
    logic                sign5_q, sign6_q;
    logic [10:0]         sig5_q;
    logic [5:0]          shift5_q;
    logic [ACT_BITS:0]   aligned6_q;  // ACT_BITS-1 bits, guard, sticky
    logic [5:0]          exp;
    assign exp = 6'(x4_q[i][14:10]) | 6'(x4_q[i][14:10] == 0);

    // 7: round to nearest even, clamp, negate.
    logic                up;
    logic [ACT_BITS-1:0] rounded;
    logic [ACT_BITS-2:0] clamped;
    assign up      = aligned6_q[1] & (aligned6_q[0] | aligned6_q[2]);
    assign rounded = ACT_BITS'(aligned6_q[ACT_BITS:2]) + ACT_BITS'(up);
    assign clamped = rounded[ACT_BITS-1] ? LIMIT : rounded[ACT_BITS-2:0];

    always_ff @(posedge clk_i) begin
      sign5_q  <= x4_q[i][15];
      sig5_q   <= {x4_q[i][14:10] != 0, x4_q[i][9:0]};
      shift5_q <= top4_q - exp + 6'(12 - ACT_BITS);

      sign6_q    <= sign5_q;
      aligned6_q <= (ACT_BITS + 1)'(fp_pkg::shift_right_sticky({9'd0, sig5_q, 12'd0},
                                                               shift5_q[5] ? 5'd31 : shift5_q[4:0]));

      mantissa_o[i] <= sign6_q ? -{1'b0, clamped} : {1'b0, clamped};
    end
  end

endmodule
