// What stands in a row's four bytes of a slice -> what its multipliers take. Combinational.
//
// An element of the unit buffer has 12 bits: a mantissa of the KV cache; or a byte of packed weights, of 6-bit codes
// with the high bits of the low nibble's code (9:8) and of the high nibble's (11:10) beside it.
//
// Narrow formats (4 bits): eight weights k = 8s + kk (low nibbles), 8s + 4 + kk (high ones).
// Wide formats: four weights k = 4s + kk; `odd_i` says which nibbles of 6-bit codes.
module weight_decode (
    input  dlavm_formats_pkg::element_e element_i,
    input  logic                        odd_i,
    input  logic [3:0][11:0]            code_i,
    output logic [7:0][4:0]             narrow_o,  // two's complement, at most 12 either way
    output logic [3:0][18:0]            wide_o,    // two's complement
    output logic [3:0][11:0]            plain_o    // of INT8 and the cache the same in 12 bits
);

  // E2M1 in units of its smallest value.
  function automatic logic [4:0] e2m1(input logic [3:0] code);
    logic [4:0] magnitude;
    case (code[2:0])
      3'd4: magnitude = 5'd4;
      3'd5: magnitude = 5'd6;
      3'd6: magnitude = 5'd8;
      3'd7: magnitude = 5'd12;
      default: magnitude = {3'd0, code[1:0]};
    endcase
    e2m1 = code[3] ? -magnitude : magnitude;
  endfunction

  // E4M3, or E2M3 with two zeros on top of its exponent: a significand of 4 bits with sign, shifted.
  function automatic logic [18:0] shifted(input logic sign, input logic [3:0] exp, input logic [2:0] frac);
    logic [4:0] significand;
    significand = {1'b0, exp != 0, frac};
    if (sign) significand = -significand;
    shifted = 19'($signed(significand)) << (exp - 4'(exp != 0));
  endfunction

  logic       six, nan;
  logic [5:0] code6;
  always_comb begin
    for (int kk = 0; kk < 4; kk++) begin
      for (int high = 0; high < 2; high++) begin
        // code - 8
        narrow_o[4*high+kk] = {~code_i[kk][4*high+3], ~code_i[kk][4*high+3], code_i[kk][4*high+:3]};
        if (element_i == dlavm_formats_pkg::ELEMENT_E2M1) narrow_o[4*high+kk] = e2m1(code_i[kk][4*high+:4]);
      end
      code6 = odd_i ? {code_i[kk][11:10], code_i[kk][7:4]} : {code_i[kk][9:8], code_i[kk][3:0]};
      six   = (element_i == dlavm_formats_pkg::ELEMENT_E2M3);
      nan   = &code_i[kk][6:0];  // reads as the largest value
      wide_o[kk] = shifted(
          six ? code6[5] : code_i[kk][7],
          six ? {2'd0, code6[4:3]} : code_i[kk][6:3],
          six ? code6[2:0] : {code_i[kk][2:1], code_i[kk][0] & ~nan});
      plain_o[kk] = code_i[kk];
      if (element_i == dlavm_formats_pkg::ELEMENT_INT8) plain_o[kk] = 12'($signed({~code_i[kk][7], code_i[kk][6:0]}));
      if (element_i inside {dlavm_formats_pkg::ELEMENT_INT8, dlavm_formats_pkg::ELEMENT_CACHE})
        wide_o[kk] = 19'($signed(plain_o[kk]));
    end
  end

endmodule
