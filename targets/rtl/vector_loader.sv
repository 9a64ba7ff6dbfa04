// Loads strips for the vector lanes: requests them ahead, in order, and writes what comes back into a bank of the lanes'
// memory, chunk by chunk, LANES elements a cycle. A strip may start at any element. The bank of a strip is taken when
// the lanes have freed it; the last load of a strip hands it over.
module vector_loader #(
    parameter int unsigned UNITS = 2,
    parameter int unsigned LANES = 8
) (
    input  logic                    clk_i,
    input  logic                    rst_i,

    input  logic                    load_valid_i,
    output logic                    load_ready_o,
    input  vector_pkg::load_t       load_i,

    output logic                    rd_req_valid_o,
    input  logic                    rd_req_ready_i,
    output logic [39:0]             rd_req_addr_o,
    output logic [23:0]             rd_req_units_o,
    input  logic                    rd_valid_i,
    output logic                    rd_ready_o,
    input  logic [UNITS*128-1:0]    rd_data_i,

    input  logic                    bank_full_i,   // the next bank
    output logic                    write_o,
    output logic [5:0]              place_o,       // stream, chunk
    output logic [LANES-1:0][15:0]  chunk_o,
    output logic                    strip_o        // the strip is complete with this write
);

  localparam int unsigned WORDS = UNITS * 8 / LANES;  // words of LANES halves in a beat
  localparam int unsigned WORD_BITS = (WORDS > 1) ? $clog2(WORDS) : 1;

  // A request as it is on its way.
  typedef struct packed {
    logic [2:0]  offset;  // halves in front of the first element
    logic [11:0] count;
    logic [1:0]  stream;
    logic [3:0]  chunk;
    logic        last;
  } flight_t;

  flight_t     sent, head;
  logic        flight_ready, head_valid, head_done;
  logic [12:0] halves;
  assign sent           = '{load_i.address[2:0], load_i.count, load_i.stream, load_i.chunk, load_i.last};
  assign halves         = 13'(load_i.count) + 13'(load_i.address[2:0]);
  assign rd_req_valid_o = load_valid_i && flight_ready;
  assign load_ready_o   = rd_req_ready_i && flight_ready;
  assign rd_req_addr_o  = {load_i.address[38:3], 4'd0};
  assign rd_req_units_o = (24'(halves) + 24'd7) >> 3;

  fifo #(.WIDTH($bits(flight_t)), .DEPTH(16)) u_flight (
      .clk_i, .rst_i, .valid_i(load_valid_i && rd_req_ready_i), .ready_o(flight_ready), .data_i(sent),
      .valid_o(head_valid), .ready_i(head_done), .data_o(head));

  // Word by word. Where the strip does not start at a unit a chunk is the end of one word and the start of the next; the
  // last chunk may need no further word (`flush`).
  logic [WORD_BITS-1:0]   word_q;
  logic [8:0]             count_q, words, chunks;   // words taken
  logic                   flush, take, last_word, aligned;
  logic [LANES-1:0][15:0] word, previous_q;
  logic [2*LANES-1:0][15:0] both;

  assign words     = 9'((13'(head.count) + 13'(head.offset) + 13'(LANES - 1)) / 13'(LANES));
  assign chunks    = 9'((13'(head.count) + 13'(LANES - 1)) / 13'(LANES));
  assign aligned   = head.offset == 0;
  assign flush     = count_q == words;
  assign last_word = count_q + 9'd1 == words;
  assign take      = head_valid && !flush && rd_valid_i && !bank_full_i;
  assign word      = rd_data_i[32'(word_q)*LANES*16+:LANES*16];
  assign both      = {word, previous_q};
  assign rd_ready_o = take && (last_word || word_q == WORD_BITS'(WORDS - 1));

  assign write_o   = (take && (aligned || count_q != 0)) || (head_valid && flush);
  assign place_o   = {head.stream, head.chunk + (aligned ? count_q[3:0] : count_q[3:0] - 4'd1)};
  assign head_done = (take && last_word && (aligned || chunks != words)) || (head_valid && flush);
  assign strip_o   = head_done && head.last;
  always_comb begin
    chunk_o = word;
    for (int k = 1; k < 8; k++) if (head.offset == 3'(k)) chunk_o = both[k+:LANES];
  end

  always_ff @(posedge clk_i) begin
    if (take) previous_q <= word;
    if (rst_i) begin
      word_q  <= '0;
      count_q <= '0;
    end else begin
      if (rd_ready_o) word_q <= '0;
      else if (take) word_q <= word_q + 1'b1;
      if (head_done) count_q <= '0;
      else if (take) count_q <= count_q + 9'd1;
    end
  end

endmodule
