// The vector engine with its command words in one port.
module vector_bench #(
    parameter int unsigned UNITS = 2,
    parameter int unsigned LANES = 8,
    parameter int unsigned VIRTUAL = 128,
    localparam int unsigned WORDS = dlavm_isa_pkg::LINEAR_WORDS
) (
    input  logic                    clk_i,
    input  logic                    rst_i,
    input  logic                    cmd_valid_i,
    output logic                    cmd_ready_o,
    input  logic [7:0]              cmd_opcode_i,
    input  logic [WORDS-1:0][31:0]  cmd_words_i,
    output logic                    done_o,
    output logic                    error_o,
    output logic [3:0]              error_code_o,
    output logic                    rd_req_valid_o,
    input  logic                    rd_req_ready_i,
    output logic [39:0]             rd_req_addr_o,
    output logic [23:0]             rd_req_units_o,
    input  logic                    rd_valid_i,
    output logic                    rd_ready_o,
    input  logic [UNITS*128-1:0]    rd_data_i,
    input  logic                    rd_last_i,
    input  logic                    rd_error_i,
    output logic                    wr_req_valid_o,
    input  logic                    wr_req_ready_i,
    output logic [39:0]             wr_req_addr_o,
    output logic [23:0]             wr_req_units_o,
    output logic                    wr_valid_o,
    input  logic                    wr_ready_i,
    output logic [UNITS*128-1:0]    wr_data_o,
    output logic [UNITS*16-1:0]     wr_strb_o,
    input  logic                    wr_idle_i,
    input  logic                    wr_error_i,
    input  logic                    table_write_i,
    input  logic [1:0]              table_slot_i,
    input  logic [10:0]             table_index_i,
    input  logic [63:0]             table_pair_i
);

  logic [31:0] words [WORDS];
  always_comb for (int i = 0; i < int'(WORDS); i++) words[i] = cmd_words_i[i];

  vector_engine #(.UNITS(UNITS), .LANES(LANES), .VIRTUAL(VIRTUAL)) u_engine (
      .clk_i, .rst_i, .cmd_valid_i, .cmd_ready_o, .cmd_opcode_i, .cmd_word_i(words), .done_o, .error_o, .error_code_o,
      .rd_req_valid_o, .rd_req_ready_i, .rd_req_addr_o, .rd_req_units_o, .rd_valid_i, .rd_ready_o, .rd_data_i, .rd_last_i,
      .rd_error_i, .wr_req_valid_o, .wr_req_ready_i, .wr_req_addr_o, .wr_req_units_o, .wr_valid_o, .wr_ready_i,
      .wr_data_o, .wr_strb_o, .wr_idle_i, .wr_error_i, .table_write_i, .table_slot_i, .table_index_i, .table_pair_i);

endmodule
