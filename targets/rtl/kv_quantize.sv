// Rows of fp16 -> what an MXINT8 cache holds of them: for each block of 32 elements a row of 32 mantissas, then, in a
// request of its own, the byte of its exponent. Elements behind the row's end are zeros. Pieces of a row come as
// row_mover cuts them; one of which no byte is marked follows a read error, and its block is not written.
//
// One block at a time: it takes its pieces, a dozen cycles in the quantiser, and two beats (three of 16 bytes).
module kv_quantize #(
    parameter int unsigned UNITS = 2,
    parameter int unsigned PIECE = 2,  // units: 1, 2 or 4
    localparam int unsigned WIDTH = UNITS * mem_pkg::UNIT_BITS
) (
    input  logic               clk_i,
    input  logic               rst_i,
    input  logic               start_i,    // before the first row
    input  logic [4:0]         slot_i,     // the first row's token in its block; with start
    input  logic [11:0]        rows_i_i,   // rows of a token, at least 1; steady
    output logic               row_done_o, // a row's last byte has been taken

    input  logic               valid_i,
    output logic               ready_o,
    input  logic [PIECE*mem_pkg::UNIT_BITS-1:0]   data_i,
    input  logic [PIECE*mem_pkg::UNIT_BITS/8-1:0] strb_i,
    input  logic               last_i,     // of its row
    output logic               valid_o,
    input  logic               ready_i,
    output logic [WIDTH-1:0]   data_o,
    output logic [WIDTH/8-1:0] strb_o
);

  localparam int unsigned PIECES = 4 / PIECE;
  localparam int unsigned PLACE_WIDTH = mem_pkg::index_width(PIECES);
  localparam int unsigned BEATS = (UNITS == 1) ? 2 : 1;  // of the mantissas

  typedef enum logic [1:0] {COLLECT, QUANTIZE, MANTISSAS, EXPONENT} state_e;
  state_e state_q;

  logic [PIECES-1:0][PIECE*mem_pkg::UNIT_BITS-1:0] block_q;
  logic [PIECE*mem_pkg::UNIT_BITS-1:0]             piece;
  logic [PLACE_WIDTH-1:0]                          place_q;
  logic [4:0]                                      slot_q;
  logic [11:0]                                     left_q;  // rows of the token
  logic                                            last_q, bad_q, full_q, beat_q, take;

  logic             quantized;
  logic [31:0][7:0] mantissa, mantissa_q;
  logic [7:0]       exp, byte_q;
  quantizer #(.ACT_BITS(8)) u_quantizer (
      .clk_i, .rst_i, .valid_i(full_q), .x_i(block_q), .valid_o(quantized), .mantissa_o(mantissa), .exp_o(exp));

  assign ready_o    = state_q == COLLECT;
  assign take       = valid_i && ready_o;
  assign valid_o    = state_q == MANTISSAS || state_q == EXPONENT;
  assign row_done_o = state_q == EXPONENT && ready_i && last_q;
  always_comb begin
    for (int b = 0; b < int'(PIECE * 16); b++) piece[8*b+:8] = strb_i[b] ? data_i[8*b+:8] : 8'd0;
  end

  logic [255:0] row;  // what is left of the mantissas
  assign row = beat_q ? {128'd0, mantissa_q[31:16]} : mantissa_q;
  always_comb begin
    data_o = WIDTH'(row);
    strb_o = (WIDTH / 8)'(32'hffff_ffff);
    if (state_q == EXPONENT) begin
      data_o = {WIDTH / 8{byte_q}};
      strb_o = (WIDTH / 8)'(1) << slot_q[3:0];
    end
    if (bad_q) strb_o = '0;
  end

  always_ff @(posedge clk_i) begin
    full_q <= 1'b0;
    case (state_q)
      COLLECT: if (take) begin
        if (place_q == '0) block_q <= '0;
        block_q[place_q] <= piece;
        bad_q            <= !strb_i[0] || (place_q != '0 && bad_q);
        last_q           <= last_i;
        place_q          <= place_q + PLACE_WIDTH'(1);
        if (last_i || place_q == PLACE_WIDTH'(PIECES - 1)) begin
          place_q <= '0;
          full_q  <= 1'b1;
          state_q <= QUANTIZE;
        end
      end
      QUANTIZE: if (quantized) begin
        mantissa_q <= mantissa;
        byte_q     <= exp + 8'(kv_pkg::BIAS + 6);  // a mantissa of 8 bits has 6 behind its point
        beat_q     <= 1'b0;
        state_q    <= MANTISSAS;
      end
      MANTISSAS: if (ready_i) begin
        beat_q <= 1'b1;
        if (BEATS == 1 || beat_q) state_q <= EXPONENT;
      end
      default: if (ready_i) begin
        state_q <= COLLECT;
        if (last_q) left_q <= left_q - 12'd1;
        if (last_q && left_q == 12'd1) begin
          left_q <= rows_i_i;
          slot_q <= slot_q + 5'd1;
        end
      end
    endcase
    if (start_i) begin
      slot_q <= slot_i;
      left_q <= rows_i_i;
    end
    if (rst_i || start_i) begin
      state_q <= COLLECT;
      place_q <= '0;
      full_q  <= 1'b0;
    end
  end

endmodule
