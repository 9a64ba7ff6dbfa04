// The arithmetic of SCALAR on 32-bit words (targets/isa/enums.yaml, scalar_fn): all but `load`. A quotient takes 34
// cycles, everything else 2. `error_o` beside `done_o`: division by zero, a shift past 31.
module scalar_alu (
    input  logic        clk_i,
    input  logic        rst_i,
    input  logic        start_i,
    input  logic [3:0]  fn_i,     // steady until done, as the operands
    input  logic [31:0] a_i,
    input  logic [31:0] b_i,
    output logic        done_o,
    output logic        error_o,
    output logic [31:0] result_o
);

  import dlavm_isa_pkg::*;

  logic        divides, shifts, less, equal;
  logic [31:0] single;
  assign divides = fn_i == SCALAR_FN_DIV || fn_i == SCALAR_FN_MOD;
  assign shifts  = fn_i == SCALAR_FN_SHL || fn_i == SCALAR_FN_SHR;
  assign less    = $signed(a_i) < $signed(b_i);
  assign equal   = a_i == b_i;

  always_comb begin
    case (fn_i)
      SCALAR_FN_MOV: single = b_i;
      SCALAR_FN_ADD: single = a_i + b_i;
      SCALAR_FN_SUB: single = a_i - b_i;
      SCALAR_FN_MUL: single = a_i * b_i;
      SCALAR_FN_MIN: single = less ? a_i : b_i;
      SCALAR_FN_MAX: single = less ? b_i : a_i;
      SCALAR_FN_SHL: single = a_i << b_i[4:0];
      SCALAR_FN_SHR: single = 32'($signed(a_i) >>> b_i[4:0]);
      SCALAR_FN_LT: single = 32'(less);
      SCALAR_FN_LE: single = 32'(less || equal);
      SCALAR_FN_EQ: single = 32'(equal);
      default: single = '0;
    endcase
  end

  // Restoring division of the magnitudes, a bit a cycle; the quotient comes in below as the dividend leaves above.
  logic        busy_q, started_q;
  logic [5:0]  left_q;
  logic [31:0] quotient_q, remainder_q, divisor;
  logic [32:0] next, reduced;
  logic        fits, negative, inexact;
  logic [31:0] floor_quotient, floor_remainder;

  assign divisor  = b_i[31] ? -b_i : b_i;
  assign next     = {remainder_q, quotient_q[31]};
  assign reduced  = next - {1'b0, divisor};
  assign fits     = !reduced[32];
  assign negative = a_i[31] != b_i[31];
  assign inexact  = remainder_q != 0;

  // Towards minus infinity; the remainder has the divisor's sign.
  assign floor_quotient  = negative ? -(quotient_q + 32'(inexact)) : quotient_q;
  always_comb begin
    if (!inexact) floor_remainder = '0;
    else if (negative) floor_remainder = b_i[31] ? remainder_q - divisor : divisor - remainder_q;
    else floor_remainder = b_i[31] ? -remainder_q : remainder_q;
  end

  always_ff @(posedge clk_i) begin
    done_o    <= 1'b0;
    started_q <= start_i;
    if (start_i) begin
      quotient_q  <= a_i[31] ? -a_i : a_i;
      remainder_q <= '0;
      left_q      <= 6'd32;
    end else if (busy_q && left_q != 0) begin
      quotient_q  <= {quotient_q[30:0], fits};
      remainder_q <= fits ? reduced[31:0] : next[31:0];
      left_q      <= left_q - 6'd1;
    end
    if (started_q && !(divides && b_i != 0)) begin
      done_o   <= 1'b1;
      error_o  <= divides || (shifts && b_i > 32'd31);
      result_o <= single;
    end else if (busy_q && left_q == 0) begin
      done_o   <= 1'b1;
      error_o  <= 1'b0;
      result_o <= (fn_i == SCALAR_FN_DIV) ? floor_quotient : floor_remainder;
    end
    busy_q <= (started_q && divides && b_i != 0) || (busy_q && left_q != 0);
    if (rst_i) begin
      busy_q    <= 1'b0;
      started_q <= 1'b0;
      done_o    <= 1'b0;
    end
  end

endmodule
