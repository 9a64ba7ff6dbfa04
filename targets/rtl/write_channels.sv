// The write half of the memory fabric behind its clients' ports: takes one chunk after the other, a row a cycle,
// spreads each row over the channels of its space, and tells the client when all of them have acknowledged the chunk.
// How a row stands in the channels: read_channels.sv.
module write_channels #(
    parameter int unsigned CLIENTS = 2,
    parameter int unsigned UNITS = 2,        // 16 bytes each, of a row
    parameter int unsigned PORT_BYTES = 16,  // of a beat of AXI
    parameter int unsigned SPACES = 1,
    parameter logic [SPACES-1:0][7:0] SPACE_CHANNELS = {SPACES{8'd2}},
    parameter logic [SPACES-1:0][15:0] SPACE_STRIPE = {SPACES{16'(PORT_BYTES)}},
    parameter int unsigned CHANNELS = 2,  // of all spaces together
    parameter int unsigned CHUNK = 16,
    parameter int unsigned CHUNKS = 16,   // on their way
    localparam int unsigned WIDTH = UNITS * mem_pkg::UNIT_BITS,
    localparam int unsigned PORT_BITS = 8 * PORT_BYTES,
    localparam int unsigned SPACE_WIDTH = mem_pkg::index_width(SPACES),
    localparam int unsigned CHUNK_WIDTH = $clog2(CHUNK) + 1
) (
    input  logic                                              clk_i,
    input  logic                                              rst_i,
    output logic                                              quiet_o,  // no chunk is on its way
    // ports of the clients
    input  logic [CLIENTS-1:0]                                chunk_valid_i,
    output logic [CLIENTS-1:0]                                chunk_ready_o,
    input  logic [CLIENTS-1:0][SPACE_WIDTH-1:0]               chunk_space_i,
    input  logic [CLIENTS-1:0][mem_pkg::ROW_WIDTH-1:0]        chunk_row_i,
    input  logic [CLIENTS-1:0][CHUNK_WIDTH-1:0]               chunk_rows_i,
    output logic [CLIENTS-1:0]                                row_ready_o,
    input  logic [CLIENTS-1:0][WIDTH-1:0]                     row_data_i,
    input  logic [CLIENTS-1:0][WIDTH/8-1:0]                   row_strb_i,
    output logic [CLIENTS-1:0]                                done_o,
    output logic                                              done_error_o,
    // AXI4, one write master a channel
    output logic [CHANNELS-1:0]                               aw_valid_o,
    input  logic [CHANNELS-1:0]                               aw_ready_i,
    output logic [CHANNELS-1:0][mem_pkg::ADDRESS_WIDTH-1:0]   aw_addr_o,
    output logic [CHANNELS-1:0][7:0]                          aw_len_o,
    output logic [CHANNELS-1:0]                               w_valid_o,
    input  logic [CHANNELS-1:0]                               w_ready_i,
    output logic [CHANNELS-1:0][PORT_BITS-1:0]                w_data_o,
    output logic [CHANNELS-1:0][PORT_BYTES-1:0]               w_strb_o,
    output logic [CHANNELS-1:0]                               w_last_o,
    input  logic [CHANNELS-1:0]                               b_valid_i,
    output logic [CHANNELS-1:0]                               b_ready_o,
    input  logic [CHANNELS-1:0][1:0]                          b_resp_i
);

  localparam int unsigned CLIENT_WIDTH = mem_pkg::index_width(CLIENTS);

  // The chunk whose rows pass.
  logic                          busy_q, issue_q, any, chosen, issued, moved, last;
  logic [CLIENT_WIDTH-1:0]       choice, client_q;
  logic [SPACE_WIDTH-1:0]        space_q;
  logic [mem_pkg::ROW_WIDTH-1:0] row_q;
  logic [CHUNK_WIDTH-1:0]        rows_q, left_q;
  logic [CHANNELS-1:0]           chunk_ready, row_ready, mine, done, done_error, done_mine;
  logic                          order_ready;

  round_robin #(.COUNT(CLIENTS)) u_choice (
      .clk_i, .rst_i, .request_i(chunk_valid_i), .advance_i(chosen), .valid_o(any), .choice_o(choice));

  assign issued = issue_q && order_ready && ((chunk_ready | ~mine) == '1);
  assign moved  = busy_q && (!issue_q || issued) && ((row_ready | ~mine) == '1);
  assign last   = left_q == CHUNK_WIDTH'(1);
  assign chosen = any && (!busy_q || (moved && last));

  always_comb begin
    chunk_ready_o         = '0;
    chunk_ready_o[choice] = chosen;
    row_ready_o           = '0;
    row_ready_o[client_q] = moved;
  end

  always_ff @(posedge clk_i) begin
    if (chosen) begin
      client_q <= choice;
      space_q  <= chunk_space_i[choice];
      row_q    <= chunk_row_i[choice];
      rows_q   <= chunk_rows_i[choice];
      left_q   <= chunk_rows_i[choice];
    end else if (moved) begin
      left_q <= left_q - CHUNK_WIDTH'(1);
    end
    if (rst_i) begin
      busy_q  <= 1'b0;
      issue_q <= 1'b0;
    end else begin
      busy_q  <= chosen || (busy_q && !(moved && last));
      issue_q <= chosen || (issue_q && !issued);
    end
  end

  // Whose chunk is acknowledged next.
  logic                    order_valid, acknowledged;
  logic [CLIENT_WIDTH-1:0] order_client;
  logic [SPACE_WIDTH-1:0]  order_space;
  fifo #(.WIDTH(CLIENT_WIDTH + SPACE_WIDTH), .DEPTH(CHUNKS)) u_order (
      .clk_i, .rst_i, .valid_i(issued), .ready_o(order_ready), .data_i({client_q, space_q}),
      .valid_o(order_valid), .ready_i(acknowledged), .data_o({order_client, order_space}));

  assign quiet_o = !busy_q && !issue_q && !order_valid;
  assign acknowledged = order_valid && ((done | ~done_mine) == '1);

  always_ff @(posedge clk_i) begin
    done_error_o <= |(done_error & done_mine);
    for (int i = 0; i < int'(CLIENTS); i++)
      done_o[i] <= !rst_i && acknowledged && order_client == CLIENT_WIDTH'(i);
  end

  function automatic int unsigned first_channel(input int unsigned space);
    first_channel = 0;
    for (int unsigned s = 0; s < space; s++) first_channel += 32'(SPACE_CHANNELS[s]);
  endfunction

  logic [WIDTH-1:0]   row_data;
  logic [WIDTH/8-1:0] row_strb;
  assign row_data = row_data_i[client_q];
  assign row_strb = row_strb_i[client_q];

  for (genvar s = 0; s < int'(SPACES); s++) begin : g_space
    localparam int unsigned COUNT = 32'(SPACE_CHANNELS[s]);
    localparam int unsigned STRIPE = 8 * 32'(SPACE_STRIPE[s]);
    localparam int unsigned STRIPES = UNITS * 128 / (COUNT * STRIPE);
    localparam int unsigned PACK = UNITS * 16 / (COUNT * PORT_BYTES);
    localparam int unsigned FIRST = first_channel(s);
    for (genvar c = 0; c < int'(COUNT); c++) begin : g_channel
      logic [PACK*PORT_BITS-1:0]  data;
      logic [PACK*PORT_BYTES-1:0] strb;
      for (genvar p = 0; p < int'(STRIPES); p++) begin : g_stripe
        assign data[p*STRIPE+:STRIPE]     = row_data[(p*COUNT+c)*STRIPE+:STRIPE];
        assign strb[p*STRIPE/8+:STRIPE/8] = row_strb[(p*COUNT+c)*(STRIPE/8)+:STRIPE/8];
      end
      assign mine[FIRST+c]      = space_q == SPACE_WIDTH'(s);
      assign done_mine[FIRST+c] = order_space == SPACE_WIDTH'(s);
      axi_write_channel #(.PORT_BYTES(PORT_BYTES), .PACK(PACK), .CHUNK(CHUNK)) u_channel (
          .clk_i, .rst_i,
          .chunk_valid_i(issued && mine[FIRST+c]), .chunk_ready_o(chunk_ready[FIRST+c]),
          .chunk_row_i(row_q), .chunk_rows_i(rows_q),
          .valid_i(moved && mine[FIRST+c]), .ready_o(row_ready[FIRST+c]), .last_i(last), .data_i(data), .strb_i(strb),
          .done_o(done[FIRST+c]), .error_o(done_error[FIRST+c]),
          .done_ready_i(acknowledged && done_mine[FIRST+c]),
          .aw_valid_o(aw_valid_o[FIRST+c]), .aw_ready_i(aw_ready_i[FIRST+c]),
          .aw_addr_o(aw_addr_o[FIRST+c]), .aw_len_o(aw_len_o[FIRST+c]),
          .w_valid_o(w_valid_o[FIRST+c]), .w_ready_i(w_ready_i[FIRST+c]), .w_data_o(w_data_o[FIRST+c]),
          .w_strb_o(w_strb_o[FIRST+c]), .w_last_o(w_last_o[FIRST+c]),
          .b_valid_i(b_valid_i[FIRST+c]), .b_ready_o(b_ready_o[FIRST+c]), .b_resp_i(b_resp_i[FIRST+c]));
    end
  end

endmodule
