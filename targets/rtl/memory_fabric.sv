// Between the engines' read and write clients and the AXI4 masters of the memory channels. A client sees a space as
// linear bytes, striped over its channels: beat row i of a space is stripe i of each of them. A row of the fabric is one or
// more beat rows. All clients have beats of UNITS; the reader `wt` has whole rows.
//
// A read returns what a write left that was acknowledged (`wr_idle_o`) before the read's request. Requests of
// different clients have no order.
module memory_fabric #(
    parameter int unsigned READERS = 2,
    parameter int unsigned WRITERS = 2,
    parameter int unsigned UNITS = 2,          // 16 bytes each, of a client's beat
    parameter int unsigned ROW_UNITS = UNITS,  // of a row
    parameter int unsigned PORT_BYTES = 16,    // of every channel's AXI data
    parameter int unsigned SPACES = 1,
    parameter logic [SPACES-1:0][mem_pkg::ADDRESS_WIDTH-1:0] BASE = '0,
    parameter logic [SPACES-1:0][mem_pkg::ADDRESS_WIDTH-1:0] CAPACITY = {SPACES{40'h1000}},
    parameter logic [SPACES-1:0][7:0] SPACE_CHANNELS = {SPACES{8'd2}},
    parameter logic [SPACES-1:0][15:0] SPACE_STRIPE = {SPACES{16'(PORT_BYTES)}},  // bytes that follow each other in a channel
    parameter int unsigned CHANNELS = 2,       // of all spaces, in their order
    parameter int unsigned CHUNK = 16,         // rows of a burst at most
    parameter int unsigned READ_ROWS = 64,     // that the buffer of `wt` holds: latency x bandwidth at least, what is fetched ahead beside it
    parameter int unsigned CLIENT_ROWS = 64,   // that those of the other readers hold, at least CHUNK
    localparam int unsigned WIDTH = UNITS * mem_pkg::UNIT_BITS,
    localparam int unsigned ROW_BITS = ROW_UNITS * mem_pkg::UNIT_BITS,
    localparam int unsigned PORT_BITS = 8 * PORT_BYTES
) (
    input  logic                                             clk_i,
    input  logic                                             rst_i,
    output logic                                             quiet_o,  // no channel owes an answer

    input  logic [READERS-1:0]                               rd_req_valid_i,
    output logic [READERS-1:0]                               rd_req_ready_o,
    input  logic [READERS-1:0][mem_pkg::ADDRESS_WIDTH-1:0]   rd_req_addr_i,
    input  logic [READERS-1:0][mem_pkg::COUNT_WIDTH-1:0]     rd_req_units_i,
    output logic [READERS-1:0]                               rd_valid_o,
    input  logic [READERS-1:0]                               rd_ready_i,
    output logic [READERS-1:0][WIDTH-1:0]                    rd_data_o,
    output logic [READERS-1:0]                               rd_last_o,
    output logic [READERS-1:0]                               rd_error_o,

    input  logic                                             wt_req_valid_i,
    output logic                                             wt_req_ready_o,
    input  logic [mem_pkg::ADDRESS_WIDTH-1:0]                wt_req_addr_i,
    input  logic [mem_pkg::COUNT_WIDTH-1:0]                  wt_req_units_i,
    output logic                                             wt_valid_o,
    input  logic                                             wt_ready_i,
    output logic [ROW_BITS-1:0]                              wt_data_o,
    output logic                                             wt_last_o,
    output logic                                             wt_error_o,

    input  logic [WRITERS-1:0]                               wr_req_valid_i,
    output logic [WRITERS-1:0]                               wr_req_ready_o,
    input  logic [WRITERS-1:0][mem_pkg::ADDRESS_WIDTH-1:0]   wr_req_addr_i,
    input  logic [WRITERS-1:0][mem_pkg::COUNT_WIDTH-1:0]     wr_req_units_i,
    input  logic [WRITERS-1:0]                               wr_valid_i,
    output logic [WRITERS-1:0]                               wr_ready_o,
    input  logic [WRITERS-1:0][WIDTH-1:0]                    wr_data_i,
    input  logic [WRITERS-1:0][WIDTH/8-1:0]                  wr_strb_i,
    output logic [WRITERS-1:0]                               wr_idle_o,
    output logic [WRITERS-1:0]                               wr_error_o,

    output logic [CHANNELS-1:0]                              ar_valid_o,
    input  logic [CHANNELS-1:0]                              ar_ready_i,
    output logic [CHANNELS-1:0][mem_pkg::ADDRESS_WIDTH-1:0]  ar_addr_o,
    output logic [CHANNELS-1:0][7:0]                         ar_len_o,
    input  logic [CHANNELS-1:0]                              r_valid_i,
    output logic [CHANNELS-1:0]                              r_ready_o,
    input  logic [CHANNELS-1:0][PORT_BITS-1:0]               r_data_i,
    input  logic [CHANNELS-1:0][1:0]                         r_resp_i,
    output logic [CHANNELS-1:0]                              aw_valid_o,
    input  logic [CHANNELS-1:0]                              aw_ready_i,
    output logic [CHANNELS-1:0][mem_pkg::ADDRESS_WIDTH-1:0]  aw_addr_o,
    output logic [CHANNELS-1:0][7:0]                         aw_len_o,
    output logic [CHANNELS-1:0]                              w_valid_o,
    input  logic [CHANNELS-1:0]                              w_ready_i,
    output logic [CHANNELS-1:0][PORT_BITS-1:0]               w_data_o,
    output logic [CHANNELS-1:0][PORT_BYTES-1:0]              w_strb_o,
    output logic [CHANNELS-1:0]                              w_last_o,
    input  logic [CHANNELS-1:0]                              b_valid_i,
    output logic [CHANNELS-1:0]                              b_ready_o,
    input  logic [CHANNELS-1:0][1:0]                         b_resp_i
);

  localparam int unsigned SPACE_WIDTH = mem_pkg::index_width(SPACES);
  localparam int unsigned CHUNK_WIDTH = $clog2(CHUNK) + 1;

  logic read_quiet, write_quiet;
  assign quiet_o = read_quiet && write_quiet;

  // A chunk's part of a channel is one burst: it has at most 256 beats and does not cross 4 KiB.
  function automatic logic [SPACES-1:0][7:0] rows_of_bursts();
    int unsigned part, rows;
    for (int s = 0; s < int'(SPACES); s++) begin
      part = ROW_UNITS * 16 / 32'(SPACE_CHANNELS[s]);
      rows = CHUNK;
      while (rows > 1 && (rows * part > mem_pkg::PAGE_BYTES || rows * part > mem_pkg::BURST_LIMIT * PORT_BYTES))
        rows = rows / 2;
      rows_of_bursts[s] = 8'(rows);
    end
  endfunction
  localparam logic [SPACES-1:0][7:0] SPACE_CHUNK = rows_of_bursts();

  // Latency x bandwidth, so that weights stream; what is asked for beyond would only let the other clients wait.
  localparam int unsigned WEIGHTS_UNDER_WAY = (READ_ROWS < 96) ? READ_ROWS : 96;

  // The last one is `wt`.
  logic [READERS:0]                          chunk_valid, chunk_ready, row_valid;
  logic [READERS:0][SPACE_WIDTH-1:0]         chunk_space;
  logic [READERS:0][mem_pkg::ROW_WIDTH-1:0]  chunk_row;
  logic [READERS:0][CHUNK_WIDTH-1:0]         chunk_rows;
  logic                                      row_error;
  logic [ROW_BITS-1:0]                       row_data;

  for (genvar i = 0; i < int'(READERS); i++) begin : g_reader
    read_port #(.UNITS(UNITS), .ROW_UNITS(ROW_UNITS), .SPACES(SPACES), .BASE(BASE), .CAPACITY(CAPACITY), .CHUNK(CHUNK),
                .SPACE_CHUNK(SPACE_CHUNK), .ROWS(CLIENT_ROWS)) u_port (
        .clk_i, .rst_i,
        .req_valid_i(rd_req_valid_i[i]), .req_ready_o(rd_req_ready_o[i]), .req_addr_i(rd_req_addr_i[i]),
        .req_units_i(rd_req_units_i[i]), .valid_o(rd_valid_o[i]), .ready_i(rd_ready_i[i]), .data_o(rd_data_o[i]),
        .last_o(rd_last_o[i]), .error_o(rd_error_o[i]),
        .chunk_valid_o(chunk_valid[i]), .chunk_ready_i(chunk_ready[i]), .chunk_space_o(chunk_space[i]),
        .chunk_row_o(chunk_row[i]), .chunk_rows_o(chunk_rows[i]),
        .row_valid_i(row_valid[i]), .row_error_i(row_error), .row_data_i(row_data));
  end

  read_port #(.UNITS(ROW_UNITS), .SPACES(SPACES), .BASE(BASE), .CAPACITY(CAPACITY), .CHUNK(CHUNK),
              .SPACE_CHUNK(SPACE_CHUNK), .ROWS(READ_ROWS), .UNDER_WAY(WEIGHTS_UNDER_WAY),
              .REQUESTS(READ_ROWS)) u_row_port (
      .clk_i, .rst_i,
      .req_valid_i(wt_req_valid_i), .req_ready_o(wt_req_ready_o), .req_addr_i(wt_req_addr_i),
      .req_units_i(wt_req_units_i), .valid_o(wt_valid_o), .ready_i(wt_ready_i), .data_o(wt_data_o),
      .last_o(wt_last_o), .error_o(wt_error_o),
      .chunk_valid_o(chunk_valid[READERS]), .chunk_ready_i(chunk_ready[READERS]),
      .chunk_space_o(chunk_space[READERS]), .chunk_row_o(chunk_row[READERS]), .chunk_rows_o(chunk_rows[READERS]),
      .row_valid_i(row_valid[READERS]), .row_error_i(row_error), .row_data_i(row_data));

  read_channels #(.CLIENTS(READERS + 1), .UNITS(ROW_UNITS), .PORT_BYTES(PORT_BYTES), .SPACES(SPACES),
                  .SPACE_CHANNELS(SPACE_CHANNELS), .SPACE_STRIPE(SPACE_STRIPE), .CHANNELS(CHANNELS),
                  .CHUNK(CHUNK)) u_read (
      .clk_i, .rst_i, .quiet_o(read_quiet),
      .chunk_valid_i(chunk_valid), .chunk_ready_o(chunk_ready), .chunk_space_i(chunk_space),
      .chunk_row_i(chunk_row), .chunk_rows_i(chunk_rows),
      .row_valid_o(row_valid), .row_error_o(row_error), .row_data_o(row_data),
      .ar_valid_o, .ar_ready_i, .ar_addr_o, .ar_len_o, .r_valid_i, .r_ready_o, .r_data_i, .r_resp_i);

  logic [WRITERS-1:0]                          put_valid, put_ready, put_row_ready, put_done;
  logic [WRITERS-1:0][SPACE_WIDTH-1:0]         put_space;
  logic [WRITERS-1:0][mem_pkg::ROW_WIDTH-1:0]  put_row;
  logic [WRITERS-1:0][CHUNK_WIDTH-1:0]         put_rows;
  logic [WRITERS-1:0][ROW_BITS-1:0]            put_data;
  logic [WRITERS-1:0][ROW_BITS/8-1:0]          put_strb;
  logic                                        put_error;

  for (genvar i = 0; i < int'(WRITERS); i++) begin : g_writer
    write_port #(.UNITS(UNITS), .ROW_UNITS(ROW_UNITS), .SPACES(SPACES), .BASE(BASE), .CAPACITY(CAPACITY),
                 .CHUNK(CHUNK), .SPACE_CHUNK(SPACE_CHUNK)) u_port (
        .clk_i, .rst_i,
        .req_valid_i(wr_req_valid_i[i]), .req_ready_o(wr_req_ready_o[i]), .req_addr_i(wr_req_addr_i[i]),
        .req_units_i(wr_req_units_i[i]), .valid_i(wr_valid_i[i]), .ready_o(wr_ready_o[i]), .data_i(wr_data_i[i]),
        .strb_i(wr_strb_i[i]), .idle_o(wr_idle_o[i]), .error_o(wr_error_o[i]),
        .chunk_valid_o(put_valid[i]), .chunk_ready_i(put_ready[i]), .chunk_space_o(put_space[i]),
        .chunk_row_o(put_row[i]), .chunk_rows_o(put_rows[i]),
        .row_ready_i(put_row_ready[i]), .row_data_o(put_data[i]), .row_strb_o(put_strb[i]),
        .done_i(put_done[i]), .done_error_i(put_error));
  end

  write_channels #(.CLIENTS(WRITERS), .UNITS(ROW_UNITS), .PORT_BYTES(PORT_BYTES), .SPACES(SPACES),
                   .SPACE_CHANNELS(SPACE_CHANNELS), .SPACE_STRIPE(SPACE_STRIPE), .CHANNELS(CHANNELS),
                   .CHUNK(CHUNK)) u_write (
      .clk_i, .rst_i, .quiet_o(write_quiet),
      .chunk_valid_i(put_valid), .chunk_ready_o(put_ready), .chunk_space_i(put_space), .chunk_row_i(put_row),
      .chunk_rows_i(put_rows), .row_ready_o(put_row_ready), .row_data_i(put_data), .row_strb_i(put_strb),
      .done_o(put_done), .done_error_o(put_error),
      .aw_valid_o, .aw_ready_i, .aw_addr_o, .aw_len_o, .w_valid_o, .w_ready_i, .w_data_o, .w_strb_o, .w_last_o,
      .b_valid_i, .b_ready_o, .b_resp_i);

endmodule
