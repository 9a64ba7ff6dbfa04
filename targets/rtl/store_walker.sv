// The addresses of a two-level row set, inner rows first: row (o, i) stands at base + o * so + i * si. `so_i` is
// looked at when an outer row ends (`outer_o`), so that it may differ from one to the next. Counts of at least 1.
module store_walker #(
    parameter int unsigned WIDTH = mem_pkg::ADDRESS_WIDTH
) (
    input  logic             clk_i,
    input  logic             rst_i,
    input  logic             start_i,
    input  logic [WIDTH-1:0] base_i,
    input  logic [WIDTH-1:0] so_i,
    input  logic [WIDTH-1:0] si_i,
    input  logic [19:0]      rows_o_i,
    input  logic [11:0]      rows_i_i,
    output logic             valid_o,
    input  logic             ready_i,
    output logic [WIDTH-1:0] addr_o,
    output logic             outer_o    // the row that is taken now is the last of its outer row
);

  logic [WIDTH-1:0] outer_q, inner_q;
  logic [19:0]      left_o_q;
  logic [11:0]      left_i_q;
  logic             valid_q, step;

  assign valid_o = valid_q;
  assign addr_o  = inner_q;
  assign step    = valid_q && ready_i;
  assign outer_o = step && left_i_q == 12'd1;

  always_ff @(posedge clk_i) begin
    if (start_i) begin
      outer_q  <= base_i;
      inner_q  <= base_i;
      left_o_q <= rows_o_i;
      left_i_q <= rows_i_i;
    end else if (outer_o) begin
      outer_q  <= outer_q + so_i;
      inner_q  <= outer_q + so_i;
      left_o_q <= left_o_q - 20'd1;
      left_i_q <= rows_i_i;
    end else if (step) begin
      inner_q  <= inner_q + si_i;
      left_i_q <= left_i_q - 12'd1;
    end
    if (rst_i) valid_q <= 1'b0;
    else if (start_i) valid_q <= 1'b1;
    else if (outer_o && left_o_q == 20'd1) valid_q <= 1'b0;
  end

endmodule
