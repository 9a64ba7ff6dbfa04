// Beats of an fp16 cache in the order of memory -> in that of kv_blocks. Memory reads a run of bytes fastest from end to
// end; between blocks of 32 tokens or between heads it would come back to rows that it has just left.
//
// keys     memory: each block of 32 tokens of a row tile with all of its elements; out: the tile's blocks of the first 32
//          elements, then of the next 32
// values   memory: of each head that shares a unit up to TOGETHER blocks of 32 tokens; out: a block of each head, then
//          the next of each
//
// So a group is I x J pieces of E beats, written i by i and read j by j, in two halves of a memory in turns. A beat that
// is not to be ordered passes straight.
module block_order #(
    parameter int unsigned UNITS = 8,  // of a beat
    parameter int unsigned SETS = 2,   // blocks of a unit
    localparam int unsigned TOGETHER = matrix_pkg::TOGETHER,
    localparam int unsigned BLOCK_BEATS = (UNITS < 128) ? 128 / UNITS : 1,
    localparam int unsigned GROUP = TOGETHER * SETS * BLOCK_BEATS,  // beats at most
    localparam int unsigned PLACE_WIDTH = $clog2(GROUP),
    localparam int unsigned COUNT_WIDTH = PLACE_WIDTH + 1
) (
    input  logic                 clk_i,
    input  logic                 clear_i,        // before each command
    input  logic                 enable_i,
    input  logic                 ordered_i,      // linear_decode
    input  logic                 values_i,       // else keys
    input  logic [23:0]          token_blocks_i, // of a batch
    input  logic [23:0]          dim_blocks_i,   // ceil(head_dim / 32)
    input  logic [11:0]          batch_i,
    input  logic [1:0]           heads_i,        // values: of a unit, log2
    input  logic                 valid_i,
    output logic                 ready_o,
    input  logic [UNITS*128-1:0] beat_i,
    output logic                 valid_o,
    input  logic                 ready_i,
    output logic [UNITS*128-1:0] beat_o
);

  typedef logic [COUNT_WIDTH-1:0] count_t;
  typedef struct packed {
    count_t i, j;
  } shape_t;

  // -- Which group comes --------------------------------------------------------------------------------------------

  logic [23:0] left_q;   // blocks of 32 tokens of the batch from this group on
  logic [11:0] batch_q;
  logic [23:0] most, tokens;
  logic [2:0]  heads;
  shape_t      coming;
  count_t      run;      // beats of a piece
  assign most   = values_i ? 24'(TOGETHER) : 24'(SETS);
  assign tokens = (left_q < most) ? left_q : most;
  assign heads  = matrix_pkg::heads_here(heads_i, batch_i - batch_q);
  assign coming = values_i ? '{i: count_t'(heads), j: count_t'(tokens)} : '{i: count_t'(tokens), j: count_t'(dim_blocks_i)};
  assign run    = values_i ? count_t'(dim_blocks_i * BLOCK_BEATS) : count_t'(BLOCK_BEATS);

  // -- In -----------------------------------------------------------------------------------------------------------

  logic   in_half_q, out_half_q, take, give;
  logic [1:0] full_q;
  shape_t shape_q [2];
  count_t in_i_q, in_j_q, in_e_q, in_place_q;
  logic   in_e_last, in_j_last, in_last;
  assign take      = valid_i & ready_o & ordered_i;
  assign in_e_last = (in_e_q + count_t'(1) == run);
  assign in_j_last = in_e_last & (in_j_q + count_t'(1) == coming.j);
  assign in_last   = in_j_last & (in_i_q + count_t'(1) == coming.i);
  assign ready_o   = enable_i & (ordered_i ? ~full_q[in_half_q] : ready_i);

  logic [UNITS*128-1:0] memory [2*GROUP];
  always_ff @(posedge clk_i) begin
    if (take) begin
      memory[{in_half_q, PLACE_WIDTH'(in_place_q)}] <= beat_i;
      shape_q[in_half_q] <= coming;
      in_place_q <= in_last ? '0 : in_place_q + count_t'(1);
      in_e_q     <= in_e_last ? '0 : in_e_q + count_t'(1);
      if (in_e_last) in_j_q <= in_j_last ? '0 : in_j_q + count_t'(1);
      if (in_j_last) in_i_q <= in_last ? '0 : in_i_q + count_t'(1);
      if (in_last) begin
        in_half_q <= ~in_half_q;
        left_q    <= (left_q == tokens) ? token_blocks_i : left_q - tokens;
        if (left_q == tokens) batch_q <= batch_q + (values_i ? 12'(heads) : 12'd1);
      end
    end
    if (clear_i) begin
      in_half_q  <= 1'b0;
      in_place_q <= '0;
      in_e_q     <= '0;
      in_j_q     <= '0;
      in_i_q     <= '0;
      left_q     <= token_blocks_i;
      batch_q    <= '0;
    end
  end

  // -- Out ----------------------------------------------------------------------------------------------------------

  shape_t shape;
  count_t out_i_q, out_j_q, out_e_q, place_q, piece_q, row_q;  // places: of this beat, of the piece's first, of i = 0
  logic   out_e_last, out_i_last, out_last, valid_q;
  logic [UNITS*128-1:0] beat_q;
  assign shape      = shape_q[out_half_q];
  assign give       = full_q[out_half_q] & (~valid_q | ready_i);
  assign out_e_last = (out_e_q + count_t'(1) == run);
  assign out_i_last = out_e_last & (out_i_q + count_t'(1) == shape.i);
  assign out_last   = out_i_last & (out_j_q + count_t'(1) == shape.j);
  assign valid_o    = ordered_i ? valid_q : valid_i;
  assign beat_o     = ordered_i ? beat_q : beat_i;

  count_t next_piece, next_row;
  assign next_piece = piece_q + count_t'(shape.j * run);
  assign next_row   = row_q + run;

  always_ff @(posedge clk_i) begin
    if (give) beat_q <= memory[{out_half_q, PLACE_WIDTH'(place_q)}];
    if (give) begin
      valid_q <= 1'b1;
      place_q <= place_q + count_t'(1);
      out_e_q <= out_e_last ? '0 : out_e_q + count_t'(1);
      if (out_e_last) begin
        out_i_q <= out_i_last ? '0 : out_i_q + count_t'(1);
        piece_q <= out_i_last ? next_row : next_piece;
        place_q <= out_i_last ? next_row : next_piece;
      end
      if (out_i_last) begin
        out_j_q <= out_j_q + count_t'(1);
        row_q   <= next_row;
      end
      if (out_last) begin
        out_half_q <= ~out_half_q;
        out_j_q    <= '0;
        place_q    <= '0;
        piece_q    <= '0;
        row_q      <= '0;
      end
    end else if (ready_i) begin
      valid_q <= 1'b0;
    end
    if (take && in_last) full_q[in_half_q] <= 1'b1;
    if (give && out_last) full_q[out_half_q] <= 1'b0;
    if (clear_i) begin
      full_q     <= '0;
      valid_q    <= 1'b0;
      out_half_q <= 1'b0;
      out_e_q    <= '0;
      out_i_q    <= '0;
      out_j_q    <= '0;
      place_q    <= '0;
      piece_q    <= '0;
      row_q      <= '0;
    end
  end

endmodule
