// Writes the results of the vector lanes: chunks of LANES halves, or words of 32 bits, to rows that may start at any
// element. Bytes outside of the elements keep their strobes low. After an error in memory nothing more is written, but
// everything is taken, so that the command comes to its end.
module vector_storer #(
    parameter int unsigned UNITS = 2,
    parameter int unsigned LANES = 8
) (
    input  logic                    clk_i,
    input  logic                    rst_i,

    input  logic                    mute_i,
    input  logic                    write_valid_i,
    output logic                    write_ready_o,
    input  vector_pkg::write_t      write_i,

    input  logic                    chunk_valid_i,
    output logic                    chunk_ready_o,
    input  logic [LANES-1:0][15:0]  chunk_i,
    input  logic                    word_valid_i,
    output logic                    word_ready_o,
    input  logic [31:0]             word_i,

    output logic                    wr_req_valid_o,
    input  logic                    wr_req_ready_i,
    output logic [39:0]             wr_req_addr_o,
    output logic [23:0]             wr_req_units_o,
    output logic                    wr_valid_o,
    input  logic                    wr_ready_i,
    output logic [UNITS*128-1:0]    wr_data_o,
    output logic [UNITS*16-1:0]     wr_strb_o,

    output logic                    idle_o
);

  localparam int unsigned WORDS = UNITS * 8 / LANES;  // words of LANES halves in a beat
  localparam int unsigned WORD_BITS = (WORDS > 1) ? $clog2(WORDS) : 1;

  // The request first, its words then.
  logic        asked_q;
  logic [2:0]  offset;
  logic [12:0] halves;
  logic        beat_q;  // a beat waits to be taken
  assign offset         = write_i.address[2:0];
  assign halves         = 13'(write_i.count) + 13'(offset);
  assign wr_req_valid_o = write_valid_i && !asked_q;
  assign wr_req_addr_o  = {write_i.address[38:3], 4'd0};
  assign wr_req_units_o = (24'(halves) + 24'd7) >> 3;

  // A word is the end of one chunk and the start of the next; behind the last chunk there may be one more word.
  logic [8:0]               count_q, words, chunks;
  logic [WORD_BITS-1:0]     word_q;
  logic                     flush, source, put, last_word;
  logic [LANES-1:0][15:0]   chunk, previous_q, word;
  logic [2*LANES-1:0][15:0] both;
  logic [LANES-1:0]         strobe;

  assign words     = 9'((halves + 13'(LANES - 1)) / 13'(LANES));
  assign chunks    = 9'((13'(write_i.count) + 13'(LANES - 1)) / 13'(LANES));
  assign flush     = count_q == chunks;
  assign source    = flush || (write_i.word ? word_valid_i : chunk_valid_i);
  assign put       = asked_q && source && (!beat_q || wr_ready_i);
  assign last_word = count_q + 9'd1 == words;
  assign chunk     = write_i.word ? (LANES * 16)'(word_i) : chunk_i;
  assign both      = {chunk, previous_q};

  assign chunk_ready_o = put && !flush && !write_i.word;
  assign word_ready_o  = put && !flush && write_i.word;
  assign write_ready_o = put && last_word;

  always_comb begin
    word = chunk;
    for (int k = 1; k < 8; k++) if (offset == 3'(k)) word = both[int'(LANES)-k+:LANES];
    for (int p = 0; p < int'(LANES); p++) begin
      strobe[p] = !mute_i && 13'(count_q) * 13'(LANES) + 13'(p) >= 13'(offset) &&
                  13'(count_q) * 13'(LANES) + 13'(p) < halves;
    end
  end

  logic [WORDS-1:0][LANES*16-1:0] data_q;
  logic [WORDS-1:0][LANES*2-1:0]  strobe_q;
  assign wr_valid_o = beat_q;
  assign wr_data_o  = data_q;
  assign wr_strb_o  = strobe_q;
  assign idle_o     = !write_valid_i && !beat_q;

  always_ff @(posedge clk_i) begin
    if (put) begin
      if (!flush) previous_q <= chunk;
      if (word_q == 0) strobe_q <= '0;
      data_q[word_q] <= word;
      for (int p = 0; p < int'(LANES); p++) strobe_q[word_q][2*p+:2] <= {2{strobe[p]}};
    end
    if (rst_i) begin
      asked_q <= 1'b0;
      beat_q  <= 1'b0;
      count_q <= '0;
      word_q  <= '0;
    end else begin
      if (wr_req_valid_o && wr_req_ready_i) asked_q <= 1'b1;
      else if (write_ready_o) asked_q <= 1'b0;
      if (put) begin
        count_q <= last_word ? 9'd0 : count_q + 9'd1;
        word_q  <= (last_word || word_q == WORD_BITS'(WORDS - 1)) ? '0 : word_q + 1'b1;
        beat_q  <= last_word || word_q == WORD_BITS'(WORDS - 1);
      end else if (wr_ready_i) begin
        beat_q <= 1'b0;
      end
    end
  end

endmodule
