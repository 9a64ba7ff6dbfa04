// Activation tables (doc/numerics.md section 6): pairs of fp32 {base, slope} of 2048 segments in each of SLOTS slots.
// LOAD_TABLE writes them; every one of READERS lanes has its own port and copy. A pair is valid one cycle after its
// index. A slot that nothing was written to since the reset reads as zeros.
module act_tables #(
    parameter int unsigned READERS = 8,
    parameter int unsigned SLOTS = 4
) (
    input  logic                            clk_i,
    input  logic                            rst_i,

    input  logic                            write_i,
    input  logic [$clog2(SLOTS)-1:0]        write_slot_i,
    input  logic [10:0]                     write_index_i,
    input  logic [63:0]                     write_pair_i,  // {base, slope}

    input  logic [$clog2(SLOTS)-1:0]        slot_i,
    input  logic [READERS-1:0][10:0]        index_i,
    output logic [READERS-1:0][63:0]        pair_o
);

  // A reset cannot clear the memories in one cycle; it forgets which of them hold anything.
  logic [SLOTS-1:0] loaded_q;
  logic             known_q;
  always_ff @(posedge clk_i) begin
    if (rst_i) loaded_q <= '0;
    else if (write_i) loaded_q[write_slot_i] <= 1'b1;
    known_q <= loaded_q[slot_i];
  end

  for (genvar r = 0; r < int'(READERS); r++) begin : g_reader
    logic [63:0] pair_q;
    logic [63:0] memory [SLOTS*2048];
    always_ff @(posedge clk_i) begin
      if (write_i) memory[{write_slot_i, write_index_i}] <= write_pair_i;
      pair_q <= memory[{slot_i, index_i[r]}];
    end
    assign pair_o[r] = known_q ? pair_q : '0;
  end

endmodule
