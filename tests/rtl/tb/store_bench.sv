// The store engine on the memory fabric of the board nano, the words of its command in one port.
module store_bench #(
    localparam int unsigned CHANNELS = 3,
    localparam int unsigned WORDS = dlavm_isa_pkg::MAX_PAYLOAD_WORDS
) (
    input  logic                        clk_i,
    input  logic                        rst_i,
    input  logic                        cmd_valid_i,
    output logic                        cmd_ready_o,
    input  logic [7:0]                  cmd_opcode_i,
    input  logic [WORDS-1:0][31:0]      cmd_words_i,
    output logic                        done_o,
    output logic                        error_o,
    output logic [3:0]                  error_code_o,
    output logic                        table_write_o,
    output logic [1:0]                  table_slot_o,
    output logic [10:0]                 table_index_o,
    output logic [63:0]                 table_pair_o,
    output logic [CHANNELS-1:0]         ar_valid_o,
    input  logic [CHANNELS-1:0]         ar_ready_i,
    output logic [CHANNELS-1:0][39:0]   ar_addr_o,
    output logic [CHANNELS-1:0][7:0]    ar_len_o,
    input  logic [CHANNELS-1:0]         r_valid_i,
    output logic [CHANNELS-1:0]         r_ready_o,
    input  logic [CHANNELS-1:0][127:0]  r_data_i,
    input  logic [CHANNELS-1:0][1:0]    r_resp_i,
    output logic [CHANNELS-1:0]         aw_valid_o,
    input  logic [CHANNELS-1:0]         aw_ready_i,
    output logic [CHANNELS-1:0][39:0]   aw_addr_o,
    output logic [CHANNELS-1:0][7:0]    aw_len_o,
    output logic [CHANNELS-1:0]         w_valid_o,
    input  logic [CHANNELS-1:0]         w_ready_i,
    output logic [CHANNELS-1:0][127:0]  w_data_o,
    output logic [CHANNELS-1:0][15:0]   w_strb_o,
    output logic [CHANNELS-1:0]         w_last_o,
    input  logic [CHANNELS-1:0]         b_valid_i,
    output logic [CHANNELS-1:0]         b_ready_o,
    input  logic [CHANNELS-1:0][1:0]    b_resp_i
);

  localparam logic [1:0][39:0] BASE = {40'h8_0000_0000, 40'h0};
  localparam logic [1:0][39:0] CAPACITY = {40'h8000, 40'h18_0000};

  logic [31:0] cmd_word [WORDS];
  for (genvar i = 0; i < int'(WORDS); i++) begin : g_word
    assign cmd_word[i] = cmd_words_i[i];
  end

  logic [1:0]        rd_req_valid, rd_req_ready, rd_valid, rd_ready, rd_last, rd_error;
  logic [1:0][39:0]  rd_req_addr;
  logic [1:0][23:0]  rd_req_units;
  logic [1:0][255:0] rd_data;
  logic              wr_req_valid, wr_req_ready, wr_valid, wr_ready, wr_idle, wr_error;
  logic [39:0]       wr_req_addr;
  logic [23:0]       wr_req_units;
  logic [255:0]      wr_data;
  logic [31:0]       wr_strb;

  store_engine #(.UNITS(2), .SPACES(2), .BASE(BASE), .CAPACITY(CAPACITY)) u_store (
      .clk_i, .rst_i, .cmd_valid_i, .cmd_ready_o, .cmd_opcode_i, .cmd_word_i(cmd_word), .done_o, .error_o, .error_code_o,
      .rd_req_valid_o(rd_req_valid), .rd_req_ready_i(rd_req_ready), .rd_req_addr_o(rd_req_addr),
      .rd_req_units_o(rd_req_units), .rd_valid_i(rd_valid), .rd_ready_o(rd_ready), .rd_data_i(rd_data),
      .rd_error_i(rd_error), .wr_req_valid_o(wr_req_valid), .wr_req_ready_i(wr_req_ready), .wr_req_addr_o(wr_req_addr),
      .wr_req_units_o(wr_req_units), .wr_valid_o(wr_valid), .wr_ready_i(wr_ready), .wr_data_o(wr_data),
      .wr_strb_o(wr_strb), .wr_idle_i(wr_idle), .wr_error_i(wr_error),
      .table_write_o, .table_slot_o, .table_index_o, .table_pair_o);

  logic unused_last;
  assign unused_last = ^rd_last;

  logic         unused_quiet;
  logic [259:0] unused_wt;
  memory_fabric #(
      .READERS(2), .WRITERS(1), .UNITS(2), .PORT_BYTES(16), .SPACES(2), .BASE(BASE), .CAPACITY(CAPACITY),
      .SPACE_CHANNELS({8'd1, 8'd2}), .CHANNELS(CHANNELS), .CHUNK(16), .READ_ROWS(64)
  ) u_fabric (
      .clk_i, .rst_i, .rd_req_valid_i(rd_req_valid), .rd_req_ready_o(rd_req_ready), .rd_req_addr_i(rd_req_addr),
      .rd_req_units_i(rd_req_units), .rd_valid_o(rd_valid), .rd_ready_i(rd_ready), .rd_data_o(rd_data),
      .rd_last_o(rd_last), .rd_error_o(rd_error), .wt_req_valid_i(1'b0), .wt_req_ready_o(unused_wt[0]),
      .wt_req_addr_i('0), .wt_req_units_i('0), .wt_valid_o(unused_wt[1]), .wt_ready_i(1'b0), .wt_data_o(unused_wt[257:2]),
      .wt_last_o(unused_wt[258]), .wt_error_o(unused_wt[259]),
      .wr_req_valid_i(wr_req_valid), .wr_req_ready_o(wr_req_ready), .wr_req_addr_i(wr_req_addr),
      .wr_req_units_i(wr_req_units), .wr_valid_i(wr_valid), .wr_ready_o(wr_ready), .wr_data_i(wr_data),
      .wr_strb_i(wr_strb), .wr_idle_o(wr_idle), .wr_error_o(wr_error), .quiet_o(unused_quiet), .*);

endmodule
