// One memory channel's AXI4 write master: a chunk of rows becomes one burst, a row's part PACK beats of it. Addresses
// and data leave as the channel takes them; a response is handed on for each chunk. The caller's chunks neither
// exceed a burst nor cross 4 KiB. Addresses count from the start of the channel.
module axi_write_channel #(
    parameter int unsigned PORT_BYTES = 16,
    parameter int unsigned PACK = 1,
    parameter int unsigned CHUNK = 16,
    parameter int unsigned CHUNKS = 4,     // addresses that wait
    parameter int unsigned ROWS = 8,       // parts that wait
    parameter int unsigned RESPONSES = 16,
    localparam int unsigned CHUNK_WIDTH = $clog2(CHUNK) + 1,
    localparam int unsigned PORT_BITS = 8 * PORT_BYTES
) (
    input  logic                              clk_i,
    input  logic                              rst_i,
    input  logic                              chunk_valid_i,
    output logic                              chunk_ready_o,
    input  logic [mem_pkg::ROW_WIDTH-1:0]     chunk_row_i,
    input  logic [CHUNK_WIDTH-1:0]            chunk_rows_i,
    input  logic                              valid_i,
    output logic                              ready_o,
    input  logic                              last_i,   // row of the chunk
    input  logic [PACK*PORT_BITS-1:0]         data_i,
    input  logic [PACK*PORT_BYTES-1:0]        strb_i,
    output logic                              done_o,   // one for each chunk, in order
    output logic                              error_o,
    input  logic                              done_ready_i,

    output logic                              aw_valid_o,
    input  logic                              aw_ready_i,
    output logic [mem_pkg::ADDRESS_WIDTH-1:0] aw_addr_o,
    output logic [7:0]                        aw_len_o,
    output logic                              w_valid_o,
    input  logic                              w_ready_i,
    output logic [PORT_BITS-1:0]              w_data_o,
    output logic [PORT_BYTES-1:0]             w_strb_o,
    output logic                              w_last_o,
    input  logic                              b_valid_i,
    output logic                              b_ready_o,
    input  logic [1:0]                        b_resp_i
);

  localparam int unsigned PART_WIDTH = mem_pkg::index_width(PACK);

  logic [mem_pkg::ROW_WIDTH-1:0] row;
  logic [CHUNK_WIDTH-1:0]        rows;
  fifo #(.WIDTH(mem_pkg::ROW_WIDTH + CHUNK_WIDTH), .DEPTH(CHUNKS)) u_chunks (
      .clk_i, .rst_i, .valid_i(chunk_valid_i), .ready_o(chunk_ready_o), .data_i({chunk_row_i, chunk_rows_i}),
      .valid_o(aw_valid_o), .ready_i(aw_ready_i), .data_o({row, rows}));

  assign aw_addr_o = mem_pkg::ADDRESS_WIDTH'(row) << $clog2(PACK * PORT_BYTES);
  assign aw_len_o  = 8'(32'(rows) * PACK - 32'd1);

  logic                       part_last, last_row;
  logic [PART_WIDTH-1:0]      part_q;
  logic [PACK*PORT_BITS-1:0]  data;
  logic [PACK*PORT_BYTES-1:0] strb;
  fifo #(.WIDTH(1 + PACK * (PORT_BITS + PORT_BYTES)), .DEPTH(ROWS)) u_rows (
      .clk_i, .rst_i, .valid_i, .ready_o, .data_i({last_i, data_i, strb_i}),
      .valid_o(w_valid_o), .ready_i(w_ready_i && part_last), .data_o({last_row, data, strb}));

  assign part_last = part_q == PART_WIDTH'(PACK - 1);
  assign w_last_o  = last_row && part_last;

  always_comb begin
    w_data_o = '0;
    w_strb_o = '0;
    for (int p = 0; p < int'(PACK); p++) begin
      if (part_q == PART_WIDTH'(p)) begin
        w_data_o = data[p*PORT_BITS+:PORT_BITS];
        w_strb_o = strb[p*PORT_BYTES+:PORT_BYTES];
      end
    end
  end

  always_ff @(posedge clk_i) begin
    if (rst_i) part_q <= '0;
    else if (w_valid_o && w_ready_i) part_q <= part_last ? '0 : part_q + PART_WIDTH'(1);
  end

  fifo #(.WIDTH(1), .DEPTH(RESPONSES)) u_responses (
      .clk_i, .rst_i, .valid_i(b_valid_i), .ready_o(b_ready_o), .data_i(b_resp_i != 2'b00),
      .valid_o(done_o), .ready_i(done_ready_i), .data_o(error_o));

endmodule
