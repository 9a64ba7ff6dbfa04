// value = T[i] + (((T[i+1] - T[i]) * f) >> F), doc/numerics.md section 7. The neighbouring points come from the table of
// the unit around it. Fully pipelined; the result is valid two cycles after its operands.
module interp #(
    parameter int unsigned F = 15  // bits of the fraction
) (
    input  logic         clk_i,
    input  logic [23:0]  point_i,     // T[i]
    input  logic [23:0]  next_i,      // T[i+1]
    input  logic [F-1:0] fraction_i,
    output logic [23:0]  value_o
);

  // Neighbouring points of every table are less than 2^16 apart.
  logic signed [16:0]  step;
  logic signed [F+17:0] product_q;
  logic [23:0]         point_q;
  assign step = $signed(17'(next_i - point_i));

  always_ff @(posedge clk_i) begin
    product_q <= $signed({step[16], step}) * $signed({1'b0, fraction_i});
    point_q   <= point_i;
    value_o   <= point_q + 24'(product_q >>> F);
  end

endmodule
