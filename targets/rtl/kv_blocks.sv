// Blocks of the KV cache ([32 tokens][32 elements]) -> units in the unit buffer, where a row tile has 32 rows or more: a
// beat brings several tokens, and a unit is made of several blocks. kv_unpack does the same for smaller tiles.
//
// Every token's 32 elements are quantised alone, if they are fp16, as many tokens a cycle as a beat has. A block is
// collected while the one before it is turned round into entries of [4 rows][4 k], written to all quads of its 32 rows.
//
// keys     rows are tokens: a unit has a block of each of the tile's blocks of 32 tokens; exponents go with the rows
// values   rows are elements: a unit has the tile's blocks of 32 elements of 32 tokens; the tokens' exponents, one for
//          each of these blocks, are for the quantiser of P
// MXINT8   (kv_pkg) mantissas come as they are, each block behind the 32 exponents of its tokens
module kv_blocks #(
    parameter int unsigned UNITS = 8,  // of a beat, at least 8
    parameter int unsigned PORT_BYTES = 16,
    parameter int unsigned HALVES = 2,
    parameter int unsigned SLOT_WIDTH = 3,
    localparam int unsigned TILE = 4 * HALVES * UNITS,  // rows, at least 32
    localparam int unsigned SETS = TILE / 32,           // blocks of a unit
    localparam int unsigned SET_WIDTH = mem_pkg::index_width(SETS),
    localparam int unsigned ENTRY_WIDTH = $clog2(8 * HALVES)
) (
    input  logic                             clk_i,
    input  logic                             rst_i,
    input  logic                             clear_i,       // before each command
    input  logic                             enable_i,
    input  logic                             values_i,      // else keys
    input  logic                             bytes_i,       // MXINT8, else fp16
    input  logic [23:0]                      key_blocks_i,  // keys: blocks of 32 tokens of a batch
    input  logic [23:0]                      dim_blocks_i,  // ceil(head_dim / 32)
    input  logic [5:0]                       dim_tail_i,    // elements in the last one, 1..32
    input  logic                             valid_i,
    output logic                             ready_o,
    input  logic [UNITS*128-1:0]             beat_i,
    input  logic [SLOT_WIDTH:0]              room_i,        // free slots
    output logic [UNITS-1:0]                 write_o,
    output logic [ENTRY_WIDTH-1:0]           entry_o,
    output logic [UNITS-1:0][3:0][3:0][11:0] code_o,
    output logic [UNITS-1:0][HALVES-1:0]     write_meta_o,
    output logic [UNITS-1:0][4*HALVES-1:0][23:0] metadata_o,
    output logic                             exp_valid_o,   // values: exponents of the block that begins to be written
    output logic [SET_WIDTH-1:0]             exp_set_o,     // its place in the unit
    output logic [31:0][7:0]                 exp_o,
    output logic                             push_o         // everything above goes to the first free slot
);

  localparam int unsigned HALF_TOKENS = (UNITS < 128) ? UNITS / 4 : 32;  // tokens of a beat: fp16,
  localparam int unsigned BYTE_TOKENS = (UNITS < 64) ? UNITS / 2 : 32;   // MXINT8
  localparam int unsigned BEATS_WIDTH = 5;

  // -- In: which block this is ------------------------------------------------------------------------------------

  logic [BEATS_WIDTH-1:0] beat_q, last_beat;     // of the block
  logic [SET_WIDTH-1:0]   set_q;                 // block of the unit
  logic [23:0]            dim_q, left_q;         // along head_dim; keys: blocks of 32 tokens from this tile on
  logic                   exponents_q, exponents, take, first, block_begins, block_in, set_last, dim_last;
  logic [31:0][7:0]       exponent_q, exponent2_q;  // by token of the block
  logic [1:0]             under_way_q;           // blocks
  logic [SLOT_WIDTH:0]    claimed_q;             // slots of units that came in but are not pushed yet
  logic                   unit_out, block_out;

  assign exponents = bytes_i & ~exponents_q;
  assign last_beat = bytes_i ? BEATS_WIDTH'(32 / BYTE_TOKENS - 1) : BEATS_WIDTH'(32 / HALF_TOKENS - 1);
  assign first     = (beat_q == '0);
  assign ready_o   = enable_i & (~first | ((under_way_q != 2'd2) & ((set_q != '0) | (room_i > claimed_q))));
  assign take      = valid_i & ready_o;
  assign block_begins = take & ~exponents & first;
  assign block_in  = take & ~exponents & (beat_q == last_beat);
  assign dim_last  = (dim_q + 24'd1 == dim_blocks_i);
  assign set_last  = (set_q == SET_WIDTH'(SETS - 1)) | (values_i ? dim_last : (24'(set_q) + 24'd1 == left_q));

  // What is known of a block when it comes, for when it leaves.
  typedef struct packed {
    logic [SET_WIDTH-1:0] set;
    logic                 last;  // of its unit
  } tag_t;
  tag_t       tags [2], tag;
  logic       tag_in_q, tag_out_q;
  assign tag = tags[tag_out_q];

  logic                 full_q, tail_q;
  logic [UNITS*128-1:0] data_q;
  always_ff @(posedge clk_i) begin
    full_q <= take & ~exponents;
    if (take) begin
      data_q <= beat_i;
      tail_q <= dim_last;
    end
    if (take && exponents) begin
      exponent_q  <= beat_i[255:0];
      exponents_q <= 1'b1;
    end
    if (take && !exponents) beat_q <= (beat_q == last_beat) ? '0 : beat_q + 1'b1;
    exponent2_q <= exponent_q;
    if (block_in) begin
      tags[tag_in_q] <= '{set: set_q, last: set_last};
      tag_in_q       <= ~tag_in_q;
      exponents_q    <= 1'b0;
      set_q          <= set_last ? '0 : set_q + 1'b1;
      // keys: all blocks of a tile, then the next 32 elements; values: block after block
      if (values_i || set_last) dim_q <= dim_last ? '0 : dim_q + 24'd1;
      if (set_last && dim_last) left_q <= (left_q <= 24'(SETS)) ? key_blocks_i : left_q - 24'(SETS);
    end
    under_way_q <= under_way_q + 2'(block_begins) - 2'(block_out);
    claimed_q   <= claimed_q + (SLOT_WIDTH + 1)'(block_begins && set_q == '0) - (SLOT_WIDTH + 1)'(unit_out);
    if (block_out) tag_out_q <= ~tag_out_q;
    if (rst_i || clear_i) begin
      full_q      <= 1'b0;
      beat_q      <= '0;
      exponents_q <= 1'b0;
      set_q       <= '0;
      dim_q       <= '0;
      left_q      <= key_blocks_i;
      under_way_q <= '0;
      claimed_q   <= '0;
      tag_in_q    <= 1'b0;
      tag_out_q   <= 1'b0;
    end
  end

  // -- Mantissas and exponents of a beat's tokens -----------------------------------------------------------------

  // Of fp16, elements past head_dim read as zero. A cache of bytes needs no quantiser; an exponent that no append writes
  // reads as the nearest that one does.
  logic [HALF_TOKENS-1:0][31:0][15:0] halves, elements;
  logic [HALF_TOKENS-1:0][31:0][11:0] made;
  logic [HALF_TOKENS-1:0][7:0]        made_exp;
  logic                               quantized;  // all of them at once
  logic [BYTE_TOKENS-1:0][31:0][7:0]  stored;
  assign halves = data_q[HALF_TOKENS*512-1:0];
  assign stored = data_q[BYTE_TOKENS*256-1:0];
  for (genvar t = 0; t < int'(HALF_TOKENS); t++) begin : g_token
    for (genvar i = 0; i < 32; i++) begin : g_element
      assign elements[t][i] = (tail_q && 6'(i) >= dim_tail_i) ? '0 : halves[t][i];
    end
    logic valid;
    if (t == 0) begin : g_all
      assign quantized = valid;
    end else begin : g_one
      logic unused_valid;
      assign unused_valid = valid;
    end
    quantizer #(.ACT_BITS(12)) u_quantizer (
        .clk_i, .rst_i(rst_i | clear_i), .valid_i(full_q & ~bytes_i), .x_i(elements[t]),
        .valid_o(valid), .mantissa_o(made[t]), .exp_o(made_exp[t]));
  end
  function automatic logic [7:0] stored_exp(input logic [7:0] exponent);
    logic [7:0] clipped;
    clipped = exponent;
    if (clipped < kv_pkg::LOWEST) clipped = kv_pkg::LOWEST;
    if (clipped > kv_pkg::HIGHEST) clipped = kv_pkg::HIGHEST;
    stored_exp = clipped - 8'(kv_pkg::BIAS + 6);
  endfunction

  // -- A block is collected ---------------------------------------------------------------------------------------

  logic [31:0][31:0][11:0] collect_q, leave_q;  // by token, element
  logic [31:0][7:0]        collect_exp_q;
  logic [BEATS_WIDTH-1:0]  count_q;             // beats of it
  logic                    collected_q, leaving_q;
  logic                    here, move;
  assign here = bytes_i ? full_q : quantized;
  // The block after this one does not begin before this one leaves: no more than two are under way.
  assign move = collected_q & (~leaving_q | block_out);

  always_ff @(posedge clk_i) begin
    if (here && count_q == last_beat) collected_q <= 1'b1;
    else if (move) collected_q <= 1'b0;
    if (here) count_q <= (count_q == last_beat) ? '0 : count_q + 1'b1;
    for (int token = 0; token < 32; token++) begin
      if (here && bytes_i && 5'(token / int'(BYTE_TOKENS)) == count_q) begin
        for (int i = 0; i < 32; i++) collect_q[token][i] <= 12'($signed(stored[token%int'(BYTE_TOKENS)][i]));
        collect_exp_q[token] <= stored_exp(exponent2_q[token]);
      end
      if (here && !bytes_i && 5'(token / int'(HALF_TOKENS)) == count_q) begin
        collect_q[token]     <= made[token%int'(HALF_TOKENS)];
        collect_exp_q[token] <= made_exp[token%int'(HALF_TOKENS)];
      end
    end
    if (rst_i || clear_i) begin
      count_q     <= '0;
      collected_q <= 1'b0;
    end
  end

  // -- and leaves -------------------------------------------------------------------------------------------------

  logic [ENTRY_WIDTH-1:0]   step_q;
  logic [2:0]               entry;
  logic                     half;
  logic [7:0][3:0][3:0][11:0] four;  // by rows 4 * j of the block
  assign entry     = step_q[ENTRY_WIDTH-1-:3];
  assign half      = (HALVES == 2) & step_q[0];
  assign block_out = leaving_q & (step_q == '1);
  assign unit_out  = block_out & tag.last;

  always_ff @(posedge clk_i) begin
    if (move) begin
      leave_q   <= collect_q;
      exp_o     <= collect_exp_q;
      leaving_q <= 1'b1;
      step_q    <= '0;
    end else if (leaving_q) begin
      step_q    <= step_q + 1'b1;
      leaving_q <= ~block_out;
    end
    if (rst_i || clear_i) leaving_q <= 1'b0;
  end

  always_comb begin
    for (int j = 0; j < 8; j++)
      for (int r = 0; r < 4; r++)
        for (int kk = 0; kk < 4; kk++)
          four[j][r][kk] = values_i ? leave_q[{entry, 2'(kk)}][4*j+r] : leave_q[4*j+r][{entry, 2'(kk)}];
  end

  for (genvar u = 0; u < int'(UNITS); u++) begin : g_quad
    localparam int unsigned ROW = matrix_pkg::first_row(u, 0, UNITS, HALVES, PORT_BYTES);
    localparam int unsigned OTHER = matrix_pkg::first_row(u, HALVES - 1, UNITS, HALVES, PORT_BYTES);
    assign write_o[u] = leaving_q & (tag.set == SET_WIDTH'(ROW / 32));
    assign code_o[u]  = half ? four[OTHER%32/4] : four[ROW%32/4];
    for (genvar h = 0; h < int'(HALVES); h++) begin : g_half
      localparam int unsigned FIRST = (h == 0) ? ROW : OTHER;
      assign write_meta_o[u][h] = write_o[u] & ~values_i & (step_q == '0);
      for (genvar r = 0; r < 4; r++) begin : g_row
        assign metadata_o[u][4*h+r] = {exp_o[FIRST%32+r], 16'd0};
      end
    end
  end

  assign entry_o     = step_q;
  assign exp_valid_o = leaving_q & values_i & (step_q == '0);
  assign exp_set_o   = tag.set;
  assign push_o      = unit_out;

endmodule
