// One memory channel's AXI4 read master: a chunk of rows becomes one burst, PACK beats of it make the channel's part
// of a row. Chunks follow each other without waiting for data; answers come in order. The caller's chunks neither
// exceed a burst nor cross 4 KiB. Addresses count from the start of the channel.
module axi_read_channel #(
    parameter int unsigned PORT_BYTES = 16,
    parameter int unsigned PACK = 1,
    parameter int unsigned CHUNK = 16,
    parameter int unsigned CHUNKS = 4,  // addresses that wait
    parameter int unsigned ROWS = 8,    // parts that wait for the other channels
    localparam int unsigned CHUNK_WIDTH = $clog2(CHUNK) + 1,
    localparam int unsigned PORT_BITS = 8 * PORT_BYTES
) (
    input  logic                              clk_i,
    input  logic                              rst_i,
    input  logic                              chunk_valid_i,
    output logic                              chunk_ready_o,
    input  logic [mem_pkg::ROW_WIDTH-1:0]     chunk_row_i,
    input  logic [CHUNK_WIDTH-1:0]            chunk_rows_i,
    output logic                              valid_o,
    input  logic                              ready_i,
    output logic                              error_o,
    output logic [PACK*PORT_BITS-1:0]         data_o,

    output logic                              ar_valid_o,
    input  logic                              ar_ready_i,
    output logic [mem_pkg::ADDRESS_WIDTH-1:0] ar_addr_o,
    output logic [7:0]                        ar_len_o,
    input  logic                              r_valid_i,
    output logic                              r_ready_o,
    input  logic [PORT_BITS-1:0]              r_data_i,
    input  logic [1:0]                        r_resp_i
);

  localparam int unsigned PART_WIDTH = mem_pkg::index_width(PACK);

  logic [mem_pkg::ROW_WIDTH-1:0] row;
  logic [CHUNK_WIDTH-1:0]        rows;
  fifo #(.WIDTH(mem_pkg::ROW_WIDTH + CHUNK_WIDTH), .DEPTH(CHUNKS)) u_chunks (
      .clk_i, .rst_i, .valid_i(chunk_valid_i), .ready_o(chunk_ready_o), .data_i({chunk_row_i, chunk_rows_i}),
      .valid_o(ar_valid_o), .ready_i(ar_ready_i), .data_o({row, rows}));

  assign ar_addr_o = mem_pkg::ADDRESS_WIDTH'(row) << $clog2(PACK * PORT_BYTES);
  assign ar_len_o  = 8'(32'(rows) * PACK - 32'd1);

  // Beats are collected to a row's part. Only a response of OKAY is data.
  logic [PART_WIDTH-1:0]     part_q;
  logic [PACK*PORT_BITS-1:0] parts_q, parts;
  logic                      error_q, error, full, room;

  assign full      = part_q == PART_WIDTH'(PACK - 1);
  assign error     = (r_resp_i != 2'b00) || (part_q != 0 && error_q);
  assign r_ready_o = room || !full;

  always_comb begin
    parts = parts_q;
    for (int p = 0; p < int'(PACK); p++)
      if (part_q == PART_WIDTH'(p)) parts[p*PORT_BITS+:PORT_BITS] = r_data_i;
  end

  always_ff @(posedge clk_i) begin
    if (r_valid_i && r_ready_o) begin
      parts_q <= parts;
      error_q <= error;
    end
    if (rst_i) part_q <= '0;
    else if (r_valid_i && r_ready_o) part_q <= full ? '0 : part_q + PART_WIDTH'(1);
  end

  fifo #(.WIDTH(PACK * PORT_BITS + 1), .DEPTH(ROWS)) u_parts (
      .clk_i, .rst_i, .valid_i(r_valid_i && full), .ready_o(room), .data_i({error, parts}),
      .valid_o, .ready_i, .data_o({error_o, data_o}));

endmodule
