// A queue of DEPTH words, a power of two of at least 2. Its first word shows itself a cycle after it went in.
module fifo #(
    parameter int unsigned WIDTH = 8,
    parameter int unsigned DEPTH = 4
) (
    input  logic             clk_i,
    input  logic             rst_i,
    input  logic             valid_i,
    output logic             ready_o,
    input  logic [WIDTH-1:0] data_i,
    output logic             valid_o,
    input  logic             ready_i,
    output logic [WIDTH-1:0] data_o
);

  localparam int unsigned BITS = $clog2(DEPTH);

  logic [WIDTH-1:0] memory [DEPTH];
  logic [BITS:0]    in_q, out_q;  // one bit more than the place: full and empty differ

  assign valid_o = in_q != out_q;
  assign ready_o = in_q != {~out_q[BITS], out_q[BITS-1:0]};
  assign data_o  = memory[out_q[BITS-1:0]];

  always_ff @(posedge clk_i) begin
    if (valid_i && ready_o) memory[in_q[BITS-1:0]] <= data_i;
    if (rst_i) begin
      in_q  <= '0;
      out_q <= '0;
    end else begin
      in_q  <= in_q + (BITS + 1)'(valid_i && ready_o);
      out_q <= out_q + (BITS + 1)'(valid_o && ready_i);
    end
  end

endmodule
