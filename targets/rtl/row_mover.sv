// Passes rows of bytes from a read client to a write client, in pieces of PIECE units where `cut_i` says so, whole
// beats otherwise. Marks the bytes of a row and no other; after a read error it marks none. A beat a cycle.
module row_mover #(
    parameter int unsigned UNITS = 2,
    parameter int unsigned PIECE = 2,  // units, a divisor of UNITS
    localparam int unsigned WIDTH = UNITS * mem_pkg::UNIT_BITS
) (
    input  logic               clk_i,
    input  logic               rst_i,
    input  logic               clear_i,      // before the first row
    input  logic               enable_i,
    input  logic               cut_i,        // steady while rows pass, as
    input  logic [20:0]        row_bytes_i,  // of each row, at least 1
    output logic               row_done_o,
    output logic               error_o,      // since the clear

    input  logic               rd_valid_i,
    output logic               rd_ready_o,
    input  logic [WIDTH-1:0]   rd_data_i,
    input  logic               rd_error_i,
    output logic               wr_valid_o,
    input  logic               wr_ready_i,
    output logic [WIDTH-1:0]   wr_data_o,
    output logic [WIDTH/8-1:0] wr_strb_o
);

  localparam int unsigned PIECES = UNITS / PIECE;
  localparam int unsigned PLACE_WIDTH = mem_pkg::index_width(PIECES);

  logic                   started_q, last, fire, bad;
  logic [20:0]            left_q, left, step;
  logic [PLACE_WIDTH-1:0] place_q;

  assign left       = started_q ? left_q : row_bytes_i;
  assign step       = cut_i ? 21'(PIECE * 16) : 21'(UNITS * 16);
  assign last       = left <= step;
  assign wr_valid_o = enable_i && rd_valid_i;
  assign fire       = wr_valid_o && wr_ready_i;
  assign rd_ready_o = enable_i && wr_ready_i && (last || !cut_i || place_q == PLACE_WIDTH'(PIECES - 1));
  assign row_done_o = fire && last;
  assign bad        = error_o || (rd_valid_i && rd_error_i);
  assign wr_data_o  = rd_data_i >> (PIECE * mem_pkg::UNIT_BITS * 32'(place_q));

  always_comb begin
    for (int b = 0; b < int'(WIDTH / 8); b++) wr_strb_o[b] = !bad && 21'(b) < left && 21'(b) < step;
  end

  always_ff @(posedge clk_i) begin
    if (fire) left_q <= left - step;
    if (rst_i || clear_i) begin
      started_q <= 1'b0;
      place_q   <= '0;
      error_o   <= 1'b0;
    end else begin
      if (fire) begin
        started_q <= !last;
        place_q   <= (last || !cut_i || place_q == PLACE_WIDTH'(PIECES - 1)) ? '0 : place_q + PLACE_WIDTH'(1);
      end
      if (fire && rd_error_i) error_o <= 1'b1;
    end
  end

endmodule
