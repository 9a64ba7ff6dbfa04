// The memory fabric with two spaces, of two channels and of one, and clients with beats of 32 bytes. By default that is
// the board nano: a row is a beat of the two channels, or two beats of the other.
module memory_bench #(
    parameter int unsigned ROW_UNITS = 2,
    parameter int unsigned PORT_BYTES = 16,
    localparam int unsigned READERS = 3,
    localparam int unsigned WRITERS = 2,
    localparam int unsigned CHANNELS = 3,
    localparam int unsigned WIDTH = 256,
    localparam int unsigned PORT_BITS = 8 * PORT_BYTES
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
    input  logic                                wt_req_valid_i,
    output logic                                wt_req_ready_o,
    input  logic [39:0]                         wt_req_addr_i,
    input  logic [23:0]                         wt_req_units_i,
    output logic                                wt_valid_o,
    input  logic                                wt_ready_i,
    output logic [ROW_UNITS*128-1:0]            wt_data_o,
    output logic                                wt_last_o,
    output logic                                wt_error_o,
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
    input  logic [CHANNELS-1:0][PORT_BITS-1:0]  r_data_i,
    input  logic [CHANNELS-1:0][1:0]            r_resp_i,
    output logic [CHANNELS-1:0]                 aw_valid_o,
    input  logic [CHANNELS-1:0]                 aw_ready_i,
    output logic [CHANNELS-1:0][39:0]           aw_addr_o,
    output logic [CHANNELS-1:0][7:0]            aw_len_o,
    output logic [CHANNELS-1:0]                 w_valid_o,
    input  logic [CHANNELS-1:0]                 w_ready_i,
    output logic [CHANNELS-1:0][PORT_BITS-1:0]  w_data_o,
    output logic [CHANNELS-1:0][PORT_BYTES-1:0] w_strb_o,
    output logic [CHANNELS-1:0]                 w_last_o,
    input  logic [CHANNELS-1:0]                 b_valid_i,
    output logic [CHANNELS-1:0]                 b_ready_o,
    input  logic [CHANNELS-1:0][1:0]            b_resp_i
);

  logic unused_quiet;
  memory_fabric #(
      .READERS(READERS), .WRITERS(WRITERS), .UNITS(2), .ROW_UNITS(ROW_UNITS), .PORT_BYTES(PORT_BYTES), .SPACES(2),
      .BASE({40'h8_0000_0000, 40'h0}), .CAPACITY({40'h4000, 40'h8000}), .SPACE_CHANNELS({8'd1, 8'd2}),
      .SPACE_STRIPE({16'(PORT_BYTES), 16'd16}), .CHANNELS(CHANNELS), .CHUNK(16), .READ_ROWS(256), .CLIENT_ROWS((ROW_UNITS == 2) ? 64 : 32)
  ) u_fabric (.quiet_o(unused_quiet), .*);

endmodule
