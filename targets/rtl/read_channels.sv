// The read half of the memory fabric behind its clients' ports: chooses a chunk, asks every channel of its space for
// its part, puts the parts together to rows in the order of the chunks, and hands them to the client.
//
// A row holds PACK beats of every channel of its space, and as many bytes of each as STRIPES stripes; byte i of the
// space stands in stripe i / SPACE_STRIPE of all stripes, counted over the channels first. A space of fewer channels
// packs more beats.
module read_channels #(
    parameter int unsigned CLIENTS = 2,
    parameter int unsigned UNITS = 2,        // 16 bytes each, of a row
    parameter int unsigned PORT_BYTES = 16,  // of a beat of AXI
    parameter int unsigned SPACES = 1,
    parameter logic [SPACES-1:0][7:0] SPACE_CHANNELS = {SPACES{8'd2}},
    parameter logic [SPACES-1:0][15:0] SPACE_STRIPE = {SPACES{16'(PORT_BYTES)}},
    parameter int unsigned CHANNELS = 2,  // of all spaces together
    parameter int unsigned CHUNK = 16,
    parameter int unsigned CHUNKS = 64,   // on their way
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
    output logic [CLIENTS-1:0]                                row_valid_o,
    output logic                                              row_error_o,
    output logic [WIDTH-1:0]                                  row_data_o,
    // AXI4, one read master a channel
    output logic [CHANNELS-1:0]                               ar_valid_o,
    input  logic [CHANNELS-1:0]                               ar_ready_i,
    output logic [CHANNELS-1:0][mem_pkg::ADDRESS_WIDTH-1:0]   ar_addr_o,
    output logic [CHANNELS-1:0][7:0]                          ar_len_o,
    input  logic [CHANNELS-1:0]                               r_valid_i,
    output logic [CHANNELS-1:0]                               r_ready_o,
    input  logic [CHANNELS-1:0][PORT_BITS-1:0]                r_data_i,
    input  logic [CHANNELS-1:0][1:0]                          r_resp_i
);

  localparam int unsigned CLIENT_WIDTH = mem_pkg::index_width(CLIENTS);

  // One chunk waits here for its channels.
  logic                          issue_q, issued, chosen;
  logic [CLIENT_WIDTH-1:0]       choice, client_q;
  logic [SPACE_WIDTH-1:0]        space_q;
  logic [mem_pkg::ROW_WIDTH-1:0] row_q;
  logic [CHUNK_WIDTH-1:0]        rows_q;
  logic                          any, order_ready;
  logic [CHANNELS-1:0]           channel_ready, channel_of_issue;

  assign chosen = any && (!issue_q || issued);
  assign issued = issue_q && order_ready && ((channel_ready | ~channel_of_issue) == '1);
  round_robin #(.COUNT(CLIENTS)) u_choice (
      .clk_i, .rst_i, .request_i(chunk_valid_i), .advance_i(chosen), .valid_o(any), .choice_o(choice));

  always_comb begin
    chunk_ready_o = '0;
    chunk_ready_o[choice] = chosen;
  end

  always_ff @(posedge clk_i) begin
    if (chosen) begin
      client_q <= choice;
      space_q  <= chunk_space_i[choice];
      row_q    <= chunk_row_i[choice];
      rows_q   <= chunk_rows_i[choice];
    end
    if (rst_i) issue_q <= 1'b0;
    else issue_q <= chosen || (issue_q && !issued);
  end

  // Whose rows come back next.
  logic                    order_valid, order_done;
  logic [CLIENT_WIDTH-1:0] order_client;
  logic [SPACE_WIDTH-1:0]  order_space;
  logic [CHUNK_WIDTH-1:0]  order_rows, taken_q;
  fifo #(.WIDTH(CLIENT_WIDTH + SPACE_WIDTH + CHUNK_WIDTH), .DEPTH(CHUNKS)) u_order (
      .clk_i, .rst_i, .valid_i(issued), .ready_o(order_ready), .data_i({client_q, space_q, rows_q}),
      .valid_o(order_valid), .ready_i(order_done), .data_o({order_client, order_space, order_rows}));

  logic [CHANNELS-1:0]            part_valid, part_error, channel_of_order;
  logic [SPACES-1:0][WIDTH-1:0]   assembled;
  logic                           row;

  for (genvar s = 0; s < int'(SPACES); s++) begin : g_space
    localparam int unsigned COUNT = 32'(SPACE_CHANNELS[s]);
    localparam int unsigned STRIPE = 8 * 32'(SPACE_STRIPE[s]);
    localparam int unsigned STRIPES = UNITS * 128 / (COUNT * STRIPE);
    localparam int unsigned PACK = UNITS * 16 / (COUNT * PORT_BYTES);
    localparam int unsigned FIRST = first_channel(s);
    for (genvar c = 0; c < int'(COUNT); c++) begin : g_channel
      logic [PACK*PORT_BITS-1:0] part;
      assign channel_of_issue[FIRST+c] = space_q == SPACE_WIDTH'(s);
      assign channel_of_order[FIRST+c] = order_space == SPACE_WIDTH'(s);
      axi_read_channel #(.PORT_BYTES(PORT_BYTES), .PACK(PACK), .CHUNK(CHUNK)) u_channel (
          .clk_i, .rst_i,
          .chunk_valid_i(issued && channel_of_issue[FIRST+c]), .chunk_ready_o(channel_ready[FIRST+c]),
          .chunk_row_i(row_q), .chunk_rows_i(rows_q),
          .valid_o(part_valid[FIRST+c]), .ready_i(row && channel_of_order[FIRST+c]),
          .error_o(part_error[FIRST+c]), .data_o(part),
          .ar_valid_o(ar_valid_o[FIRST+c]), .ar_ready_i(ar_ready_i[FIRST+c]),
          .ar_addr_o(ar_addr_o[FIRST+c]), .ar_len_o(ar_len_o[FIRST+c]),
          .r_valid_i(r_valid_i[FIRST+c]), .r_ready_o(r_ready_o[FIRST+c]),
          .r_data_i(r_data_i[FIRST+c]), .r_resp_i(r_resp_i[FIRST+c]));
      for (genvar p = 0; p < int'(STRIPES); p++) begin : g_stripe
        assign assembled[s][(p*COUNT+c)*STRIPE+:STRIPE] = part[p*STRIPE+:STRIPE];
      end
    end
  end

  function automatic int unsigned first_channel(input int unsigned space);
    first_channel = 0;
    for (int unsigned s = 0; s < space; s++) first_channel += 32'(SPACE_CHANNELS[s]);
  endfunction

  assign quiet_o = !issue_q && !order_valid;
  assign row        = order_valid && ((part_valid | ~channel_of_order) == '1);
  assign order_done = row && taken_q == order_rows - CHUNK_WIDTH'(1);

  always_ff @(posedge clk_i) begin
    row_data_o  <= assembled[order_space];
    row_error_o <= |(part_error & channel_of_order);
    if (rst_i) begin
      taken_q     <= '0;
      row_valid_o <= '0;
    end else begin
      if (row) taken_q <= order_done ? '0 : taken_q + CHUNK_WIDTH'(1);
      for (int i = 0; i < int'(CLIENTS); i++) row_valid_o[i] <= row && order_client == CLIENT_WIDTH'(i);
    end
  end

endmodule
