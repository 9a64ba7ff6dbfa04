// The memory fabric with the spaces of the board nano: two channels, and one whose rows are two of its beats.
module memory_bench #(
    localparam int unsigned READERS = 3,
    localparam int unsigned WRITERS = 2,
    localparam int unsigned CHANNELS = 3,
    localparam int unsigned WIDTH = 256,
    localparam int unsigned PORT_BYTES = 16
) (
    input  logic                                clk_i,
    input  logic                                rst_i,
    input  logic [READERS-1:0]                  rd_req_valid_i,
    output logic [READERS-1:0]                  rd_req_ready_o,
    input  logic [READERS-1:0][39:0]            rd_req_addr_i,
    input  logic [READERS-1:0][23:0]            rd_req_units_i,
    output logic [READERS-1:0]                  rd_valid_o,
    input  logic [READERS-1:0]                  rd_ready_i,
    output logic [READERS-1:0][WIDTH-1:0]       rd_data_o,
    output logic [READERS-1:0]                  rd_last_o,
    output logic [READERS-1:0]                  rd_error_o,
    input  logic [WRITERS-1:0]                  wr_req_valid_i,
    output logic [WRITERS-1:0]                  wr_req_ready_o,
    input  logic [WRITERS-1:0][39:0]            wr_req_addr_i,
    input  logic [WRITERS-1:0][23:0]            wr_req_units_i,
    input  logic [WRITERS-1:0]                  wr_valid_i,
    output logic [WRITERS-1:0]                  wr_ready_o,
    input  logic [WRITERS-1:0][WIDTH-1:0]       wr_data_i,
    input  logic [WRITERS-1:0][WIDTH/8-1:0]     wr_strb_i,
    output logic [WRITERS-1:0]                  wr_idle_o,
    output logic [WRITERS-1:0]                  wr_error_o,
    output logic [CHANNELS-1:0]                 ar_valid_o,
    input  logic [CHANNELS-1:0]                 ar_ready_i,
    output logic [CHANNELS-1:0][39:0]           ar_addr_o,
    output logic [CHANNELS-1:0][7:0]            ar_len_o,
    input  logic [CHANNELS-1:0]                 r_valid_i,
    output logic [CHANNELS-1:0]                 r_ready_o,
    input  logic [CHANNELS-1:0][127:0]          r_data_i,
    input  logic [CHANNELS-1:0][1:0]            r_resp_i,
    output logic [CHANNELS-1:0]                 aw_valid_o,
    input  logic [CHANNELS-1:0]                 aw_ready_i,
    output logic [CHANNELS-1:0][39:0]           aw_addr_o,
    output logic [CHANNELS-1:0][7:0]            aw_len_o,
    output logic [CHANNELS-1:0]                 w_valid_o,
    input  logic [CHANNELS-1:0]                 w_ready_i,
    output logic [CHANNELS-1:0][127:0]          w_data_o,
    output logic [CHANNELS-1:0][PORT_BYTES-1:0] w_strb_o,
    output logic [CHANNELS-1:0]                 w_last_o,
    input  logic [CHANNELS-1:0]                 b_valid_i,
    output logic [CHANNELS-1:0]                 b_ready_o,
    input  logic [CHANNELS-1:0][1:0]            b_resp_i
);

  logic unused_quiet;
  memory_fabric #(
      .READERS(READERS), .WRITERS(WRITERS), .UNITS(2), .PORT_BYTES(PORT_BYTES), .SPACES(2),
      .BASE({40'h8_0000_0000, 40'h0}), .CAPACITY({40'h4000, 40'h8000}), .SPACE_CHANNELS({8'd1, 8'd2}),
      .CHANNELS(CHANNELS), .CHUNK(16), .READ_ROWS(64)
  ) u_fabric (.quiet_o(unused_quiet), .*);

endmodule
