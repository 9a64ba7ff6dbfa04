// Chooses one of COUNT requests, beginning behind the one chosen last. Combinational; `advance_i` says that the
// choice was taken.
module round_robin #(
    parameter int unsigned COUNT = 2,
    localparam int unsigned WIDTH = mem_pkg::index_width(COUNT)
) (
    input  logic             clk_i,
    input  logic             rst_i,
    input  logic [COUNT-1:0] request_i,
    input  logic             advance_i,
    output logic             valid_o,
    output logic [WIDTH-1:0] choice_o
);

  logic [WIDTH-1:0] last_q;

  assign valid_o = |request_i;

  // The later loop wins: those behind the last choice before those up to it, the lowest of each first.
  always_comb begin
    choice_o = '0;
    for (int i = int'(COUNT) - 1; i >= 0; i--) if (request_i[i]) choice_o = WIDTH'(i);
    for (int i = int'(COUNT) - 1; i >= 0; i--) if (request_i[i] && WIDTH'(i) > last_q) choice_o = WIDTH'(i);
  end

  always_ff @(posedge clk_i) begin
    if (rst_i) last_q <= '0;
    else if (advance_i) last_q <= choice_o;
  end

endmodule
