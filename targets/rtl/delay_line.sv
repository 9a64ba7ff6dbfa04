// Holds a value for CYCLES cycles. Without reset, so that it maps to shift-register memory.
module delay_line #(
    parameter int unsigned WIDTH = 1,
    parameter int unsigned CYCLES = 1
) (
    input  logic             clk_i,
    input  logic [WIDTH-1:0] value_i,
    output logic [WIDTH-1:0] value_o
);

  logic [CYCLES-1:0][WIDTH-1:0] value_q;
  assign value_o = value_q[CYCLES-1];

  always_ff @(posedge clk_i) begin
    value_q[0] <= value_i;
    for (int i = 1; i < int'(CYCLES); i++) value_q[i] <= value_q[i-1];
  end

endmodule
