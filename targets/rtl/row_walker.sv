// Addresses of rows (o, i), i fastest: base + o * so + i * si. `start_i` begins with row (0, 0) of a base; `next_i`
// goes on to the next row. The address is valid in the cycle after either.
module row_walker #(
    parameter int unsigned WIDTH = 32
) (
    input  logic             clk_i,
    input  logic             start_i,
    input  logic             next_i,
    input  logic [WIDTH-1:0] base_i,
    input  logic [WIDTH-1:0] so_i,
    input  logic [WIDTH-1:0] si_i,
    input  logic [11:0]      rows_i_i,  // inner rows
    output logic [WIDTH-1:0] address_o
);

  logic [WIDTH-1:0] outer_q;
  logic [11:0]      inner_q;
  logic             last;
  assign last = (inner_q + 12'd1 == rows_i_i);

  always_ff @(posedge clk_i) begin
    if (start_i) begin
      outer_q   <= base_i;
      address_o <= base_i;
      inner_q   <= '0;
    end else if (next_i && last) begin
      outer_q   <= outer_q + so_i;
      address_o <= outer_q + so_i;
      inner_q   <= '0;
    end else if (next_i) begin
      address_o <= address_o + si_i;
      inner_q   <= inner_q + 12'd1;
    end
  end

endmodule
