// The words of a command that the host left in registers, one after the other: its opcode (LAUNCH), then its payload
// (OP). For a core without a stream, in the place of `fetch`. A word a cycle; `first_i` begins with the opcode.
module register_words (
    input  logic        clk_i,
    input  logic        first_i,
    input  logic [31:0] opcode_i,  // these are steady while they are read
    input  logic [dlavm_isa_pkg::REG_OP_COUNT-1:0][31:0] op_i,
    input  logic        ready_i,   // the word is taken
    output logic [31:0] word_o
);

  localparam int unsigned COUNT = dlavm_isa_pkg::REG_OP_COUNT;

  logic                     payload_q;
  logic [$clog2(COUNT)-1:0] index_q;

  assign word_o = payload_q ? op_i[index_q] : opcode_i;

  always_ff @(posedge clk_i) begin
    if (first_i) begin
      payload_q <= 1'b0;
      index_q   <= '0;
    end else if (ready_i) begin
      payload_q <= 1'b1;
      if (payload_q) index_q <= index_q + 1'd1;
    end
  end

endmodule
