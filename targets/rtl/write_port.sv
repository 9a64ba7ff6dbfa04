// One write client of the memory fabric: turns beats that begin with a request's first unit to rows of its memory
// space, collects them to chunks, and offers a chunk when all of it is there, so that a client that dawdles never
// holds a channel. One row a cycle.
//
// `idle_o`: every byte handed over has been acknowledged by memory. `error_o` marks, for a cycle, a request outside
// of every memory space (its bytes are swallowed) or an error response.
module write_port #(
    parameter int unsigned UNITS = 2,          // 16 bytes each, of a beat of the client
    parameter int unsigned ROW_UNITS = UNITS,  // of a row
    parameter int unsigned SPACES = 1,
    parameter logic [SPACES-1:0][mem_pkg::ADDRESS_WIDTH-1:0] BASE = '0,
    parameter logic [SPACES-1:0][mem_pkg::ADDRESS_WIDTH-1:0] CAPACITY = {SPACES{40'h1000}},
    parameter int unsigned CHUNK = 16,  // rows, a power of two
    parameter logic [SPACES-1:0][7:0] SPACE_CHUNK = {SPACES{8'(CHUNK)}},  // the same of each space, at most CHUNK
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
    input  logic                              valid_i,
    output logic                              ready_o,
    input  logic [WIDTH-1:0]                  data_i,
    input  logic [WIDTH/8-1:0]                strb_i,
    output logic                              idle_o,
    output logic                              error_o,
    // channels: a chunk, its rows, and later the acknowledgement
    output logic                              chunk_valid_o,
    input  logic                              chunk_ready_i,
    output logic [SPACE_WIDTH-1:0]            chunk_space_o,
    output logic [mem_pkg::ROW_WIDTH-1:0]     chunk_row_o,
    output logic [CHUNK_WIDTH-1:0]            chunk_rows_o,
    input  logic                              row_ready_i,
    output logic [ROW_BITS-1:0]               row_data_o,
    output logic [ROW_BITS/8-1:0]             row_strb_o,
    input  logic                              done_i,
    input  logic                              done_error_i
);

  localparam int unsigned WORDS = ROW_UNITS / UNITS;
  localparam int unsigned OFFSET_WIDTH = mem_pkg::index_width(UNITS);          // of a unit in a word,
  localparam int unsigned ROW_OFFSET_WIDTH = mem_pkg::index_width(ROW_UNITS);  // in a row
  localparam int unsigned PLACE_WIDTH = mem_pkg::index_width(WORDS);           // of a word in a row
  localparam int unsigned COUNT = mem_pkg::COUNT_WIDTH;
  localparam int unsigned OUTSTANDING_WIDTH = 8;

  logic                              head_valid, take;
  logic [mem_pkg::ADDRESS_WIDTH-1:0] head_addr;
  logic [COUNT-1:0]                  head_units;
  fifo #(.WIDTH(mem_pkg::ADDRESS_WIDTH + COUNT), .DEPTH(4)) u_requests (
      .clk_i, .rst_i, .valid_i(req_valid_i), .ready_o(req_ready_o), .data_i({req_addr_i, req_units_i}),
      .valid_o(head_valid), .ready_i(take), .data_o({head_addr, head_units}));

  logic                          map_ok;
  logic [SPACE_WIDTH-1:0]        map_space;
  logic [mem_pkg::ROW_WIDTH-1:0] map_row;
  logic [ROW_OFFSET_WIDTH-1:0]   map_offset;
  logic [COUNT:0]                unused_rows;
  address_map #(.UNITS(ROW_UNITS), .SPACES(SPACES), .BASE(BASE), .CAPACITY(CAPACITY)) u_map (
      .addr_i(head_addr), .units_i(head_units), .ok_o(map_ok), .space_o(map_space), .row_o(map_row),
      .offset_o(map_offset), .rows_o(unused_rows));

  // The request whose words are made: as large as a beat of the client, in the places that they have in a row.
  logic                          busy_q, ok_q;
  logic [SPACE_WIDTH-1:0]        space_q;
  logic [mem_pkg::ROW_WIDTH-1:0] row_q;
  logic [OFFSET_WIDTH-1:0]       offset_q;
  logic [COUNT-1:0]              left_q;    // units that the client has not delivered yet
  logic [COUNT:0]                words_q;   // words that are not made yet
  logic [PLACE_WIDTH-1:0]        place_q;   // of the next one in its row
  logic [WIDTH-1:0]              carry_q;   // the end of the last beat, for the start of the next word
  logic [WIDTH/8-1:0]            carry_strb_q;

  logic [OFFSET_WIDTH-1:0] first_unit;
  logic [PLACE_WIDTH-1:0]  first_word;
  logic [COUNT:0]          first_words;
  assign first_unit  = (UNITS > 1) ? OFFSET_WIDTH'(map_offset) : '0;
  assign first_word  = (WORDS > 1) ? PLACE_WIDTH'(map_offset >> $clog2(UNITS)) : '0;
  assign first_words = ((COUNT + 1)'(head_units) + (COUNT + 1)'(first_unit) + (COUNT + 1)'(UNITS - 1)) >> $clog2(UNITS);

  logic                 beat_due, made, last, row_made, chunk_end, room, chunk_room;
  logic [UNITS-1:0]     wanted;
  logic [WIDTH/8-1:0]   strb;
  logic [2*WIDTH-1:0]   wide;
  logic [WIDTH/4-1:0]   wide_strb;

  assign beat_due = left_q != 0;
  assign last     = words_q == (COUNT + 1)'(1);
  assign row_made = made && ok_q && (last || WORDS == 1 || place_q == PLACE_WIDTH'(WORDS - 1));
  assign made     = busy_q && (valid_i || !beat_due) && (!ok_q || (room && chunk_room));
  assign ready_o  = busy_q && beat_due && (!ok_q || (room && chunk_room));
  assign take     = head_valid && (!busy_q || (made && last));

  always_comb begin
    for (int u = 0; u < int'(UNITS); u++) wanted[u] = COUNT'(u) < left_q;
    for (int b = 0; b < int'(WIDTH / 8); b++) strb[b] = strb_i[b] && wanted[b/16];
  end
  assign wide      = (2 * WIDTH)'(data_i) << {offset_q, 7'd0};
  assign wide_strb = (WIDTH / 4)'(strb) << {offset_q, 4'd0};

  always_ff @(posedge clk_i) begin
    if (take) begin
      ok_q         <= map_ok;
      space_q      <= map_space;
      row_q        <= map_row;
      offset_q     <= first_unit;
      place_q      <= first_word;
      left_q       <= head_units;
      words_q      <= first_words;
      carry_strb_q <= '0;
    end else if (made) begin
      if (row_made) row_q <= row_q + mem_pkg::ROW_WIDTH'(1);
      place_q      <= (WORDS == 1) ? '0 : place_q + PLACE_WIDTH'(1);
      left_q       <= (left_q < COUNT'(UNITS)) ? '0 : left_q - COUNT'(UNITS);
      words_q      <= words_q - (COUNT + 1)'(1);
      carry_q      <= wide[2*WIDTH-1:WIDTH];
      carry_strb_q <= wide_strb[WIDTH/4-1:WIDTH/8];
    end
    if (rst_i) busy_q <= 1'b0;
    else busy_q <= take || (busy_q && !(made && last));
  end

  // Rows, and chunks as soon as their last row is here. Two chunks of rows have room: one leaves while one comes.
  logic [WIDTH-1:0]       word_data;
  logic [WIDTH/8-1:0]     word_strb;
  logic [ROW_BITS-1:0]    row_data;
  logic [ROW_BITS/8-1:0]  row_strb;
  logic                   row_valid_unused;
  logic [CHUNK_WIDTH-1:0] rows_of_chunk_q, most;

  always_comb begin
    word_strb = carry_strb_q | (beat_due ? wide_strb[WIDTH/8-1:0] : '0);
    for (int b = 0; b < int'(WIDTH / 8); b++)
      word_data[8*b+:8] = carry_strb_q[b] ? carry_q[8*b+:8] : wide[8*b+:8];
  end

  // A row's words before the last one wait for it.
  if (WORDS == 1) begin : g_row
    assign row_data = word_data;
    assign row_strb = word_strb;
  end else begin : g_words
    logic [WORDS-1:0][WIDTH-1:0]   data_q;
    logic [WORDS-1:0][WIDTH/8-1:0] strb_q;
    always_comb begin
      for (int w = 0; w < int'(WORDS); w++) begin
        row_data[w*WIDTH+:WIDTH]         = (place_q == PLACE_WIDTH'(w)) ? word_data : data_q[w];
        row_strb[w*(WIDTH/8)+:WIDTH/8]   = (place_q == PLACE_WIDTH'(w)) ? word_strb : strb_q[w];
      end
    end
    always_ff @(posedge clk_i) begin
      if (made) begin
        data_q[place_q] <= word_data;
        strb_q[place_q] <= word_strb;
      end
      if (take || row_made) strb_q <= '0;
    end
  end

  fifo #(.WIDTH(ROW_BITS + ROW_BITS / 8), .DEPTH(2 * CHUNK)) u_rows (
      .clk_i, .rst_i, .valid_i(row_made), .ready_o(room), .data_i({row_data, row_strb}),
      .valid_o(row_valid_unused), .ready_i(row_ready_i), .data_o({row_data_o, row_strb_o}));

  assign most      = CHUNK_WIDTH'(SPACE_CHUNK[space_q]) - CHUNK_WIDTH'(1);
  assign chunk_end = row_made && (last || (CHUNK_WIDTH'(row_q) & most) == most);
  fifo #(.WIDTH(SPACE_WIDTH + mem_pkg::ROW_WIDTH + CHUNK_WIDTH), .DEPTH(8)) u_chunks (
      .clk_i, .rst_i, .valid_i(chunk_end), .ready_o(chunk_room),
      .data_i({space_q, row_q - mem_pkg::ROW_WIDTH'(rows_of_chunk_q), rows_of_chunk_q + CHUNK_WIDTH'(1)}),
      .valid_o(chunk_valid_o), .ready_i(chunk_ready_i), .data_o({chunk_space_o, chunk_row_o, chunk_rows_o}));

  // Chunks that memory has not acknowledged yet: those here, and those that the channels have.
  logic [OUTSTANDING_WIDTH-1:0] outstanding_q;
  assign idle_o = !head_valid && !busy_q && outstanding_q == 0;

  always_ff @(posedge clk_i) begin
    error_o <= !rst_i && ((take && !map_ok) || (done_i && done_error_i));
    if (rst_i) begin
      outstanding_q   <= '0;
      rows_of_chunk_q <= '0;
    end else begin
      outstanding_q <= outstanding_q + OUTSTANDING_WIDTH'(chunk_end) - OUTSTANDING_WIDTH'(done_i);
      if (row_made) rows_of_chunk_q <= chunk_end ? '0 : rows_of_chunk_q + CHUNK_WIDTH'(1);
    end
  end

endmodule
