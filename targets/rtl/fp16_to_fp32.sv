// The exact fp32 value of an fp16 number; exponent 31 reads as 65504 with its sign (doc/numerics.md, section 1).
// Combinational.
module fp16_to_fp32 (
    input  logic [15:0] half_i,
    output logic [31:0] value_o
);

  logic [4:0]  exp;
  logic [9:0]  frac, normal;
  logic [5:0]  zeros;
  assign exp   = (half_i[14:10] == 5'd31) ? 5'd30 : half_i[14:10];
  assign frac  = (half_i[14:10] == 5'd31) ? 10'h3ff : half_i[9:0];
  assign zeros = fp_pkg::clz32({frac, 22'h3f_ffff});
  // Every subnormal fp16 is a normal fp32; its leading one becomes the hidden bit.
  assign normal = 10'(frac << (zeros + 6'd1));

  always_comb begin
    if (exp != 0) value_o = {half_i[15], 8'(exp) + 8'd112, frac, 13'd0};
    else if (frac != 0) value_o = {half_i[15], 8'd112 - 8'(zeros), normal, 13'd0};
    else value_o = {half_i[15], 31'd0};
  end

endmodule
