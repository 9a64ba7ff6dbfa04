// One read client of the memory fabric: its requests, cut into chunks of rows that no burst limit or 4 KiB boundary
// divides; the rows that come back, turned so that a beat begins with the request's first unit. A client whose beats
// are smaller than rows gets them word by word.
//
// A chunk is asked for only when the buffer has room for all of it, so that a client that does not listen never
// keeps others waiting; and no more is on its way than UNDER_WAY rows, behind which the others wait. Requests are answered in order, at one beat a cycle; a request that starts inside a row
// costs one cycle more. One outside of every memory space is answered with beats marked `error_o`.
module read_port #(
    parameter int unsigned UNITS = 2,          // 16 bytes each, of a beat of the client
    parameter int unsigned ROW_UNITS = UNITS,  // of a row
    parameter int unsigned SPACES = 1,
    parameter logic [SPACES-1:0][mem_pkg::ADDRESS_WIDTH-1:0] BASE = '0,
    parameter logic [SPACES-1:0][mem_pkg::ADDRESS_WIDTH-1:0] CAPACITY = {SPACES{40'h1000}},
    parameter int unsigned CHUNK = 16,     // rows, a power of two
    parameter logic [SPACES-1:0][7:0] SPACE_CHUNK = {SPACES{8'(CHUNK)}},  // the same of each space, at most CHUNK
    parameter int unsigned ROWS = 64,      // of the buffer, a power of two, at least CHUNK
    parameter int unsigned UNDER_WAY = ROWS,  // rows that were asked for and have not come, at most
    parameter int unsigned REQUESTS = 64,  // on their way
    localparam int unsigned WIDTH = UNITS * mem_pkg::UNIT_BITS,
    localparam int unsigned ROW_BITS = ROW_UNITS * mem_pkg::UNIT_BITS,
    localparam int unsigned SPACE_WIDTH = mem_pkg::index_width(SPACES),
    localparam int unsigned CHUNK_WIDTH = $clog2(CHUNK) + 1
) (
    input  logic                              clk_i,
    input  logic                              rst_i,
    // client
    input  logic                              req_valid_i,
    output logic                              req_ready_o,
    input  logic [mem_pkg::ADDRESS_WIDTH-1:0] req_addr_i,
    input  logic [mem_pkg::COUNT_WIDTH-1:0]   req_units_i,  // at least 1
    output logic                              valid_o,
    input  logic                              ready_i,
    output logic [WIDTH-1:0]                  data_o,
    output logic                              last_o,
    output logic                              error_o,
    // channels: chunks out, their rows in, in the same order
    output logic                              chunk_valid_o,
    input  logic                              chunk_ready_i,
    output logic [SPACE_WIDTH-1:0]            chunk_space_o,
    output logic [mem_pkg::ROW_WIDTH-1:0]     chunk_row_o,
    output logic [CHUNK_WIDTH-1:0]            chunk_rows_o,
    input  logic                              row_valid_i,
    input  logic                              row_error_i,
    input  logic [ROW_BITS-1:0]               row_data_i
);

  localparam int unsigned OFFSET_WIDTH = mem_pkg::index_width(ROW_UNITS);
  localparam int unsigned WORD_UNIT_WIDTH = mem_pkg::index_width(UNITS);
  localparam int unsigned COUNT = mem_pkg::COUNT_WIDTH;
  localparam int unsigned CREDIT_WIDTH = $clog2(ROWS) + 1;

  // Requests wait, then are cut.
  logic                              head_valid, take;
  logic [mem_pkg::ADDRESS_WIDTH-1:0] head_addr;
  logic [COUNT-1:0]                  head_units;
  fifo #(.WIDTH(mem_pkg::ADDRESS_WIDTH + COUNT), .DEPTH(4)) u_requests (
      .clk_i, .rst_i, .valid_i(req_valid_i), .ready_o(req_ready_o), .data_i({req_addr_i, req_units_i}),
      .valid_o(head_valid), .ready_i(take), .data_o({head_addr, head_units}));

  logic                          map_ok;
  logic [SPACE_WIDTH-1:0]        map_space;
  logic [mem_pkg::ROW_WIDTH-1:0] map_row;
  logic [OFFSET_WIDTH-1:0]       map_offset;
  logic [COUNT:0]                map_rows;
  address_map #(.UNITS(ROW_UNITS), .SPACES(SPACES), .BASE(BASE), .CAPACITY(CAPACITY)) u_map (
      .addr_i(head_addr), .units_i(head_units), .ok_o(map_ok), .space_o(map_space), .row_o(map_row),
      .offset_o(map_offset), .rows_o(map_rows));

  logic                          busy_q;
  logic [SPACE_WIDTH-1:0]        space_q;
  logic [mem_pkg::ROW_WIDTH-1:0] row_q;
  logic [COUNT:0]                rows_q;
  logic [CREDIT_WIDTH-1:0]       credit_q, under_way_q;
  logic [CHUNK_WIDTH-1:0]        to_boundary, rows;
  logic                          granted, row_taken;

  logic [CHUNK_WIDTH-1:0] most;
  assign most          = CHUNK_WIDTH'(SPACE_CHUNK[space_q]);
  assign to_boundary   = most - (CHUNK_WIDTH'(row_q) & (most - CHUNK_WIDTH'(1)));
  assign rows          = (rows_q < (COUNT + 1)'(to_boundary)) ? CHUNK_WIDTH'(rows_q) : to_boundary;
  assign chunk_valid_o = busy_q && credit_q >= CREDIT_WIDTH'(rows) &&
      under_way_q + CREDIT_WIDTH'(rows) <= CREDIT_WIDTH'(UNDER_WAY);
  assign chunk_space_o = space_q;
  assign chunk_row_o   = row_q;
  assign chunk_rows_o  = rows;
  assign granted       = chunk_valid_o && chunk_ready_i;

  logic told_ready;
  assign take = head_valid && told_ready && (!busy_q || (granted && rows_q == (COUNT + 1)'(rows)));

  always_ff @(posedge clk_i) begin
    if (take) begin
      space_q <= map_space;
      row_q   <= map_row;
      rows_q  <= map_rows;
    end else if (granted) begin
      row_q  <= row_q + mem_pkg::ROW_WIDTH'(rows);
      rows_q <= rows_q - (COUNT + 1)'(rows);
    end
    if (rst_i) begin
      busy_q      <= 1'b0;
      credit_q    <= CREDIT_WIDTH'(ROWS);
      under_way_q <= '0;
    end else begin
      if (take) busy_q <= map_ok;
      else if (granted && rows_q == (COUNT + 1)'(rows)) busy_q <= 1'b0;
      credit_q    <= credit_q - (granted ? CREDIT_WIDTH'(rows) : '0) + CREDIT_WIDTH'(row_taken);
      under_way_q <= under_way_q + (granted ? CREDIT_WIDTH'(rows) : '0) - CREDIT_WIDTH'(row_valid_i);
    end
  end

  // What the other side has to know about each request.
  logic                    told_valid, ok, done;
  logic [OFFSET_WIDTH-1:0] row_offset;
  logic [COUNT-1:0]        units;
  fifo #(.WIDTH(1 + OFFSET_WIDTH + COUNT), .DEPTH(REQUESTS)) u_told (
      .clk_i, .rst_i, .valid_i(take), .ready_o(told_ready), .data_i({map_ok, map_offset, head_units}),
      .valid_o(told_valid), .ready_i(done), .data_o({ok, row_offset, units}));

  // Rows come when they please; the credit says that there is room.
  logic                row_valid, row_error;
  logic [ROW_BITS-1:0] row_data;
  row_buffer #(.WIDTH(ROW_BITS + 1), .ROWS(ROWS)) u_rows (
      .clk_i, .rst_i, .valid_i(row_valid_i), .data_i({row_error_i, row_data_i}), .valid_o(row_valid),
      .ready_i(row_taken), .data_o({row_error, row_data}));

  // The row's words, from the one that holds the request's first unit to the one with its last.
  logic [WIDTH-1:0] word_data;
  logic             word_taken;
  logic [WORD_UNIT_WIDTH-1:0] offset;  // of the request's first unit in its word
  if (ROW_UNITS == UNITS) begin : g_row
    assign word_data = row_data;
    assign row_taken = word_taken;
    assign offset    = row_offset;
  end else begin : g_words
    localparam int unsigned PLACE_WIDTH = $clog2(ROW_UNITS / UNITS);
    logic [PLACE_WIDTH-1:0] place_q, place;
    logic [COUNT:0]         rest_q, rest;  // units from this word on
    logic                   begun_q;
    assign offset    = (UNITS > 1) ? WORD_UNIT_WIDTH'(row_offset) : '0;
    assign place     = begun_q ? place_q : row_offset[OFFSET_WIDTH-1-:PLACE_WIDTH];
    assign rest      = begun_q ? rest_q : (COUNT + 1)'(units) + (COUNT + 1)'(offset);
    assign word_data = row_data[32'(place)*WIDTH+:WIDTH];
    assign row_taken = word_taken && (place == '1 || rest <= (COUNT + 1)'(UNITS));
    always_ff @(posedge clk_i) begin
      if (word_taken) begin
        place_q <= place + PLACE_WIDTH'(1);
        rest_q  <= rest - (COUNT + 1)'(UNITS);
      end
      if (rst_i || done) begun_q <= 1'b0;
      else if (word_taken) begun_q <= 1'b1;
    end
  end

  // A beat of a request that starts inside a word is the end of one word, held, and the start of the next.
  logic             started_q, held_q, held_error_q;
  logic [COUNT-1:0] left_q, left;
  logic [WIDTH-1:0] held_data_q;
  logic             direct, in_held, fire;

  assign left    = started_q ? left_q : units;
  assign direct  = offset == 0;
  assign last_o  = left <= COUNT'(UNITS);
  assign in_held = left <= COUNT'(UNITS) - COUNT'(offset);  // nothing of the next row is needed
  assign valid_o = told_valid && (!ok || (direct ? row_valid : held_q && (in_held || row_valid)));
  assign error_o = !ok || (!direct && held_error_q) || (row_error && (direct || !in_held));
  assign data_o  = direct ? word_data : WIDTH'({word_data, held_data_q} >> {offset, 7'd0});
  assign fire    = valid_o && ready_i;
  assign done    = fire && last_o;

  always_comb begin
    if (!told_valid || !ok) word_taken = 1'b0;
    else if (direct) word_taken = fire;
    else word_taken = row_valid && (!held_q || (fire && !in_held));
  end

  always_ff @(posedge clk_i) begin
    if (fire) left_q <= left - COUNT'(UNITS);
    if (word_taken) {held_error_q, held_data_q} <= {row_error, word_data};
    if (rst_i || done) begin
      started_q <= 1'b0;
      held_q    <= 1'b0;
    end else begin
      if (fire) started_q <= 1'b1;
      if (word_taken) held_q <= 1'b1;
    end
  end

endmodule
