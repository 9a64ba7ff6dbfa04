// Helpers of the fp32 units: the number rules of doc/numerics.md, section 1, in one place.
package fp_pkg;

  typedef struct packed {
    logic        sign;
    logic [7:0]  exp;
    logic [22:0] frac;
  } fp32_t;

  // Cycles from operands to result. Lint sees one module at a time, and none uses all of them.
  // verilator lint_off UNUSEDPARAM
  localparam int unsigned ADD_LATENCY = 4;
  localparam int unsigned MUL_LATENCY = 5;
  localparam int unsigned INT_LATENCY = 3;
  localparam int unsigned LANE_LATENCY = 4;  // matrix_lane
  localparam int unsigned BLOCK_LATENCY = 9;  // activation_quantizer
  localparam int unsigned HALF_LATENCY = 2;  // fp32_to_fp16
  localparam int unsigned TABLE_LATENCY = 5;  // exp_unit, root_unit
  localparam int unsigned ACT_LATENCY = 1 + MUL_LATENCY + ADD_LATENCY;  // act_eval
  // verilator lint_on UNUSEDPARAM

  localparam logic [30:0] MAX_FINITE = 31'h7f7f_ffff;

  // No infinity and no NaN exists: an exponent of all ones reads as the largest finite value.
  function automatic fp32_t finite(input logic [31:0] bits);
    finite = (bits[30:23] == 8'hff) ? {bits[31], MAX_FINITE} : bits;
  endfunction

  // The same of fp16: exponent 31 reads as 65504.
  function automatic logic [15:0] finite_half(input logic [15:0] bits);
    finite_half = (bits[14:10] == 5'd31) ? {bits[15], 15'h7bff} : bits;
  endfunction

  // The fp32 value of 0..31.
  function automatic logic [31:0] small_integer(input logic [4:0] x);
    logic [4:0] normal;
    logic [7:0] exp;
    normal = x;
    exp    = 8'd131;
    for (int i = 0; i < 4; i++) begin
      if (!normal[4]) begin
        normal = normal << 1;
        exp    = exp - 8'd1;
      end
    end
    small_integer = (x == 0) ? 32'd0 : {1'b0, exp, normal[3:0], 19'd0};
  endfunction

  // Leading zeros by halvings; 32 for zero. A narrower value goes to the top, with ones below it.
  function automatic logic [5:0] clz32(input logic [31:0] x);
    logic [31:0] rest;
    rest = x;
    for (int level = 4; level >= 0; level--) begin
      clz32[level] = (rest >> (32 - (1 << level))) == 0;
      if (clz32[level]) rest = rest << (1 << level);
    end
    clz32[5] = ~rest[31];
    if (clz32[5]) clz32[4:0] = '0;
  endfunction

  // Right shift that remembers: a one that falls out stays visible in bit 0, for the rounding after it.
  function automatic logic [31:0] shift_right_sticky(input logic [31:0] x, input logic [4:0] amount);
    logic sticky;
    sticky = 1'b0;
    shift_right_sticky = x;
    for (int level = 0; level < 5; level++) begin
      sticky = sticky | (amount[level] & |(shift_right_sticky & ((32'd1 << (1 << level)) - 32'd1)));
      shift_right_sticky = amount[level] ? shift_right_sticky >> (1 << level) : shift_right_sticky;
    end
    shift_right_sticky[0] = shift_right_sticky[0] | sticky;
  endfunction

  // Rounds to nearest even and packs. `exp` is biased and at least 1; a significand without its top bit is
  // subnormal (or zero) and then exp must be 1. The rounding carry runs on into the exponent by itself.
  function automatic logic [31:0] round_pack(input logic sign, input logic [8:0] exp, input logic [23:0] sig,
                                             input logic guard, input logic sticky);
    logic        up;
    logic [31:0] magnitude;
    up         = guard & (sticky | sig[0]);
    magnitude  = {sig[23] ? exp : 9'd0, sig[22:0]} + 32'(up);
    round_pack = (magnitude[31:23] >= 9'd255) ? {sign, MAX_FINITE} : {sign, magnitude[30:0]};
  endfunction

endpackage
