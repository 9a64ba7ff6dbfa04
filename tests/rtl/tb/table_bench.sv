// The units between fp32, fp16 and tables, in banks of WAYS that take many cases a cycle.
module table_bench #(
    parameter int unsigned WAYS = 32,
    parameter int unsigned READERS = 8
) (
    input  logic clk_i,
    input  logic rst_i,

    input  logic [WAYS-1:0][31:0] value_i,
    output logic [WAYS-1:0][15:0] rounded_o,
    output logic [WAYS-1:0][31:0] exp_o,
    input  logic                  root_i,
    output logic [WAYS-1:0][31:0] root_o,

    input  logic                     write_i,
    input  logic [1:0]               write_slot_i,
    input  logic [10:0]              write_index_i,
    input  logic [63:0]              write_pair_i,
    input  logic [1:0]               slot_i,
    input  logic [READERS-1:0][15:0] half_i,
    output logic [READERS-1:0][31:0] act_o
);

  for (genvar w = 0; w < int'(WAYS); w++) begin : g_way
    fp32_to_fp16 u_round (.clk_i, .value_i(value_i[w]), .half_o(rounded_o[w]));
    exp_unit u_exp (.clk_i, .t_i(value_i[w]), .value_o(exp_o[w]));
    root_unit u_root (.clk_i, .root_i, .x_i(value_i[w]), .value_o(root_o[w]));
  end

  logic [READERS-1:0][10:0] index;
  logic [READERS-1:0][63:0] pair;
  act_tables #(.READERS(READERS), .SLOTS(4)) u_tables (
      .clk_i, .rst_i, .write_i, .write_slot_i, .write_index_i, .write_pair_i, .slot_i, .index_i(index), .pair_o(pair));
  for (genvar r = 0; r < int'(READERS); r++) begin : g_reader
    act_eval u_eval (.clk_i, .half_i(half_i[r]), .index_o(index[r]), .pair_i(pair[r]), .value_o(act_o[r]));
  end

endmodule
