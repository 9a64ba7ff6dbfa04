// A small queue in distributed memory. `value_o` shows the oldest entry while `valid_o` is set.
module vector_fifo #(
    parameter int unsigned WIDTH = 8,
    parameter int unsigned DEPTH = 8  // a power of two
) (
    input  logic             clk_i,
    input  logic             rst_i,
    input  logic             valid_i,
    output logic             ready_o,
    input  logic [WIDTH-1:0] value_i,
    output logic             valid_o,
    input  logic             ready_i,
    output logic [WIDTH-1:0] value_o
);

  localparam int unsigned BITS = $clog2(DEPTH);
  logic [WIDTH-1:0] memory [DEPTH];
  logic [BITS:0]    head_q, tail_q;  // with a bit to tell full from empty

  assign valid_o = head_q != tail_q;
  assign ready_o = tail_q - head_q != (BITS + 1)'(DEPTH);
  assign value_o = memory[head_q[BITS-1:0]];

  always_ff @(posedge clk_i) begin
    if (valid_i && ready_o) memory[tail_q[BITS-1:0]] <= value_i;
    if (rst_i) begin
      head_q <= '0;
      tail_q <= '0;
    end else begin
      if (valid_i && ready_o) tail_q <= tail_q + 1'b1;
      if (valid_o && ready_i) head_q <= head_q + 1'b1;
    end
  end

endmodule
