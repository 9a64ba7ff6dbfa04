// The larger of two finite fp32 values, or a where it comes behind b: it is smaller, or equal and `behind_i` is set; else the
// lowest value. -0 equals +0. The value is valid fp_pkg::MUL_LATENCY cycles after its operands, `early_o` fp_pkg::ADD_LATENCY,
// `equal_o` one.
module vector_order (
    input  logic        clk_i,
    input  logic        select_i,
    input  logic        behind_i,
    input  logic [31:0] a_i,
    input  logic [31:0] b_i,
    output logic        equal_o,
    output logic [31:0] early_o,
    output logic [31:0] value_o
);

  logic zeros, above, equal, less;
  assign zeros = a_i[30:0] == 0 && b_i[30:0] == 0;
  assign above = a_i[30:0] > b_i[30:0];
  assign equal = a_i == b_i || zeros;
  always_comb begin
    if (a_i[31] != b_i[31]) less = a_i[31] && !zeros;
    else less = a_i[31] ? above : !above && !equal;
  end

  logic        less_q, select_q, behind_q;
  logic [31:0] a_q, b_q, value_q;
  always_ff @(posedge clk_i) begin
    equal_o  <= equal;
    less_q   <= less;
    select_q <= select_i;
    behind_q <= behind_i;
    a_q      <= a_i;
    b_q      <= b_i;
    if (select_q) value_q <= (less_q || (equal_o && behind_q)) ? a_q : vector_pkg::LOWEST;
    else value_q <= less_q ? b_q : a_q;
  end

  delay_line #(.WIDTH(32), .CYCLES(fp_pkg::ADD_LATENCY - 2)) u_early (.clk_i, .value_i(value_q), .value_o(early_o));
  delay_line #(.WIDTH(32), .CYCLES(fp_pkg::MUL_LATENCY - fp_pkg::ADD_LATENCY)) u_value (
      .clk_i, .value_i(early_o), .value_o);

endmodule
