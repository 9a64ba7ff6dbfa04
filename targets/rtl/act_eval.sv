// value = act(half), doc/numerics.md section 6, in fp32; the caller rounds where it stores. `index_o` goes to a reader of
// act_tables, which answers with `pair_i` a cycle later. Fully pipelined; the result is valid fp_pkg::ACT_LATENCY cycles after
// its operand.
module act_eval (
    input  logic        clk_i,
    input  logic [15:0] half_i,
    output logic [10:0] index_o,
    input  logic [63:0] pair_i,  // {base, slope}
    output logic [31:0] value_o
);

  logic [15:0] half;
  assign half    = fp_pkg::finite_half(half_i);
  assign index_o = half[15:5];

  logic [4:0]  fraction_q;
  logic [31:0] product, base;
  always_ff @(posedge clk_i) fraction_q <= half[4:0];

  fp32_mul #(.B_SIG(5)) u_mul (
      .clk_i, .a_i(pair_i[31:0]), .b_i(fp_pkg::small_integer(fraction_q)), .product_o(product));
  delay_line #(.WIDTH(32), .CYCLES(fp_pkg::MUL_LATENCY)) u_base (.clk_i, .value_i(pair_i[63:32]), .value_o(base));
  fp32_add u_add (.clk_i, .a_i(base), .b_i(product), .sum_o(value_o));

endmodule
