// Blocks of the KV cache ([32 tokens][32 elements]) -> units in the unit buffer, where a row tile has 32 rows or more: a
// beat brings a token or several, and a unit is made of a block or several. kv_unpack does the same for smaller tiles.
//
// Every token's 32 elements are quantised alone, if they are fp16, as many tokens a cycle as a beat has. A block that is
// complete is turned round into entries of [4 rows][4 k], one a cycle, written to all quads of its 32 rows. Blocks of
// different places in a unit (sets) belong to different quads, so that LEAVERS of them leave at once, that of set s
// through stage s % LEAVERS: as many as fp16 needs to come at a beat a cycle. Nothing stops a block on its way; its
// last beat is taken when its stage will be free.
//
// keys     rows are tokens: a unit has a block of each of the tile's blocks of 32 tokens; exponents go with the rows
// values   rows are elements: a unit has the tile's blocks of 32 elements of 32 tokens, or those of several heads, each
//          head's behind SETS / heads sets; the tokens' exponents, one for each block, are for the quantiser of P
// MXINT8   (kv_pkg) mantissas come as they are, each block behind the 32 exponents of its tokens
module kv_blocks #(
    parameter int unsigned UNITS = 8,  // of a beat, at least 4
    parameter int unsigned PORT_BYTES = 16,
    parameter int unsigned HALVES = 2,
    parameter int unsigned SLOT_WIDTH = 3,
    localparam int unsigned TILE = 4 * HALVES * UNITS,  // rows, at least 32
    localparam int unsigned SETS = TILE / 32,           // blocks of a unit
    localparam int unsigned SET_WIDTH = mem_pkg::index_width(SETS),
    localparam int unsigned LEAVERS = (SETS > 4) ? SETS / 2 : (SETS > 1) ? 2 : 1,
    localparam int unsigned ENTRY_WIDTH = $clog2(8 * HALVES)
) (
    input  logic                             clk_i,
    input  logic                             rst_i,
    input  logic                             clear_i,       // before each command
    input  logic                             enable_i,
    input  logic                             values_i,      // else keys
    input  logic                             bytes_i,       // MXINT8, else fp16
    input  logic [23:0]                      key_blocks_i,  // keys: blocks of 32 tokens of a batch
    input  logic [23:0]                      token_blocks_i,  // values: blocks of 32 tokens of a batch
    input  logic [11:0]                      batch_i,
    input  logic [1:0]                       heads_i,       // values: of a unit, log2
    input  logic [23:0]                      dim_blocks_i,  // ceil(head_dim / 32)
    input  logic [5:0]                       dim_tail_i,    // elements in the last one, 1..32
    input  logic                             valid_i,
    output logic                             ready_o,
    input  logic [UNITS*128-1:0]             beat_i,
    input  logic [SLOT_WIDTH:0]              room_i,        // free slots
    output logic [UNITS-1:0]                 write_o,
    output logic [UNITS-1:0][SLOT_WIDTH-1:0] slot_o,
    output logic [UNITS-1:0][ENTRY_WIDTH-1:0] entry_o,
    output logic [UNITS-1:0][3:0][3:0][11:0] code_o,
    output logic [UNITS-1:0][HALVES-1:0]     write_meta_o,
    output logic [SLOT_WIDTH-1:0]            meta_slot_o,   // of the block that begins to be written
    output logic [UNITS-1:0][4*HALVES-1:0][23:0] metadata_o,
    output logic                             exp_valid_o,   // values: its exponents
    output logic [SET_WIDTH-1:0]             exp_set_o,     // its place in the unit
    output logic [31:0][7:0]                 exp_o,
    output logic                             push_o         // the oldest unit is complete
);

  localparam int unsigned HALF_TOKENS = (UNITS < 128) ? UNITS / 4 : 32;  // tokens of a beat: fp16,
  localparam int unsigned BYTE_TOKENS = (UNITS < 64) ? UNITS / 2 : 32;   // MXINT8
  localparam int unsigned BEATS_WIDTH = 5;
  localparam int unsigned ENTRIES = 8 * HALVES;
  localparam int unsigned STAGE_WIDTH = mem_pkg::index_width(LEAVERS);
  localparam int unsigned FLIGHT_WIDTH = 4;  // blocks between their last beat and their stage: no more than cycles

  // -- In: which block this is ------------------------------------------------------------------------------------

  logic [BEATS_WIDTH-1:0] beat_q, last_beat;     // of the block
  logic [SET_WIDTH-1:0]   set_q;                 // block of the unit
  logic [23:0]            dim_q, left_q;         // along head_dim; keys: blocks of 32 tokens from this tile on
  logic                   exponents_q, exponents, take, first, last, unit_begins, block_in, set_last, dim_last, head_last;
  logic [11:0]            batch_q;               // values: of the unit's first head,
  logic [2:0]             head_q, heads;         // and which of them
  logic [23:0]            token_block_q;
  logic [SET_WIDTH-1:0]   next_head;             // its first set
  logic [31:0][7:0]       exponent_q, exponent2_q;  // by token of the block
  logic [SLOT_WIDTH-1:0]  slot_q;                // of the unit
  logic [SLOT_WIDTH:0]    claimed_q;             // slots of units that came in but are not pushed yet
  logic [LEAVERS-1:0][ENTRY_WIDTH-1:0] busy_q;   // cycles until a block's last beat may come for this stage
  logic                   move;                  // a block that is collected goes to its stage

  function automatic logic [STAGE_WIDTH-1:0] stage_of(input logic [SET_WIDTH-1:0] set);
    stage_of = STAGE_WIDTH'(32'(set) % LEAVERS);
  endfunction

  assign exponents = bytes_i & ~exponents_q;
  assign last_beat = bytes_i ? BEATS_WIDTH'(32 / BYTE_TOKENS - 1) : BEATS_WIDTH'(32 / HALF_TOKENS - 1);
  assign first     = (beat_q == '0);
  assign last      = ~exponents & (beat_q == last_beat);
  assign ready_o   = enable_i & (~first | (set_q != '0) | (room_i > claimed_q)) &
                     (~last | (busy_q[stage_of(set_q)] == '0));
  assign take      = valid_i & ready_o;
  assign block_in  = take & last;
  assign unit_begins = take & ~exponents & first & (set_q == '0);
  assign dim_last  = (dim_q + 24'd1 == dim_blocks_i);
  assign heads     = matrix_pkg::heads_here(heads_i, batch_i - batch_q);
  assign head_last = (head_q + 3'd1 == heads);
  assign next_head = SET_WIDTH'((32'(head_q) + 32'd1) * (SETS >> heads_i));
  assign set_last  = (set_q == SET_WIDTH'(SETS - 1)) |
                     (values_i ? dim_last & head_last : (24'(set_q) + 24'd1 == left_q));

  // What is known of a block when it comes, for when it leaves.
  typedef struct packed {
    logic [SET_WIDTH-1:0]  set;
    logic [SLOT_WIDTH-1:0] slot;
    logic                  last;  // of its unit
  } tag_t;
  tag_t                    tags [2**FLIGHT_WIDTH], tag;
  logic [FLIGHT_WIDTH-1:0] tag_in_q, tag_out_q;
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
    if (take && !exponents) beat_q <= last ? '0 : beat_q + 1'b1;
    exponent2_q <= exponent_q;
    for (int s = 0; s < int'(LEAVERS); s++) if (busy_q[s] != '0) busy_q[s] <= busy_q[s] - 1'b1;
    if (block_in) begin
      busy_q[stage_of(set_q)] <= ENTRY_WIDTH'(ENTRIES - 1);
      tags[tag_in_q] <= '{set: set_q, slot: slot_q, last: set_last};
      tag_in_q       <= tag_in_q + 1'b1;
      exponents_q    <= 1'b0;
      set_q          <= set_last ? '0 : (values_i && dim_last) ? next_head : set_q + 1'b1;
      if (values_i && dim_last) begin
        head_q <= head_last ? '0 : head_q + 3'd1;
        if (head_last) begin
          token_block_q <= token_block_q + 24'd1;
          if (token_block_q + 24'd1 == token_blocks_i) begin
            token_block_q <= '0;
            batch_q       <= batch_q + 12'(heads);
          end
        end
      end
      if (set_last) slot_q <= slot_q + 1'b1;
      // keys: all blocks of a tile, then the next 32 elements; values: block after block
      if (values_i || set_last) dim_q <= dim_last ? '0 : dim_q + 24'd1;
      if (set_last && dim_last) left_q <= (left_q <= 24'(SETS)) ? key_blocks_i : left_q - 24'(SETS);
    end
    if (move) tag_out_q <= tag_out_q + 1'b1;
    claimed_q <= claimed_q + (SLOT_WIDTH + 1)'(unit_begins) - (SLOT_WIDTH + 1)'(push_o);
    if (rst_i || clear_i) begin
      full_q      <= 1'b0;
      beat_q      <= '0;
      exponents_q <= 1'b0;
      set_q       <= '0;
      slot_q      <= '0;
      dim_q       <= '0;
      head_q      <= '0;
      batch_q     <= '0;
      token_block_q <= '0;
      left_q      <= key_blocks_i;
      claimed_q   <= '0;
      busy_q      <= '0;
      tag_in_q    <= '0;
      tag_out_q   <= '0;
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

  logic [31:0][31:0][11:0] collect_q;           // by token, element
  logic [31:0][7:0]        collect_exp_q;
  logic [BEATS_WIDTH-1:0]  count_q;             // beats of it
  logic                    here;
  assign here = bytes_i ? full_q : quantized;

  always_ff @(posedge clk_i) begin
    move <= here & (count_q == last_beat);
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
      count_q <= '0;
      move    <= 1'b0;
    end
  end

  // -- and leaves -------------------------------------------------------------------------------------------------

  // The block that was moved last: no two begin in the same cycle.
  logic [SET_WIDTH-1:0]  begun_set_q;
  logic [SLOT_WIDTH-1:0] begun_slot_q;
  logic                  begins_q;
  always_ff @(posedge clk_i) begin
    begins_q <= move & ~rst_i & ~clear_i;
    if (move) begin
      begun_set_q  <= tag.set;
      begun_slot_q <= tag.slot;
      exp_o        <= collect_exp_q;
    end
  end
  assign meta_slot_o = begun_slot_q;
  assign exp_valid_o = begins_q & values_i;
  assign exp_set_o   = begun_set_q;

  tag_t [LEAVERS-1:0]                        tag_q;
  logic [LEAVERS-1:0]                        leaving_q, unit_out;
  logic [LEAVERS-1:0][ENTRY_WIDTH-1:0]       step_q;
  logic [LEAVERS-1:0]                        half;
  logic [LEAVERS-1:0][7:0][3:0][3:0][11:0]   four;  // by rows 4 * j of the block
  assign push_o = |unit_out;
  for (genvar s = 0; s < int'(LEAVERS); s++) begin : g_stage
    logic [31:0][31:0][11:0] leave_q;  // by token, element
    logic [2:0]              entry;
    logic                    mine, block_out;
    assign mine        = move & (stage_of(tag.set) == STAGE_WIDTH'(s));
    assign entry       = step_q[s][ENTRY_WIDTH-1-:3];
    assign half[s]     = (HALVES == 2) & step_q[s][0];
    assign block_out   = leaving_q[s] & (step_q[s] == '1);
    assign unit_out[s] = block_out & tag_q[s].last;
    always_ff @(posedge clk_i) begin
      if (mine) begin
        leave_q      <= collect_q;
        tag_q[s]     <= tag;
        leaving_q[s] <= 1'b1;
        step_q[s]    <= '0;
      end else if (leaving_q[s]) begin
        step_q[s]    <= step_q[s] + 1'b1;
        leaving_q[s] <= ~block_out;
      end
      if (rst_i || clear_i) leaving_q[s] <= 1'b0;
    end
    always_comb begin
      for (int j = 0; j < 8; j++)
        for (int r = 0; r < 4; r++)
          for (int kk = 0; kk < 4; kk++)
            four[s][j][r][kk] = values_i ? leave_q[{entry, 2'(kk)}][4*j+r] : leave_q[4*j+r][{entry, 2'(kk)}];
    end
  end

  for (genvar u = 0; u < int'(UNITS); u++) begin : g_quad
    localparam int unsigned ROW = matrix_pkg::first_row(u, 0, UNITS, HALVES, PORT_BYTES);
    localparam int unsigned OTHER = matrix_pkg::first_row(u, HALVES - 1, UNITS, HALVES, PORT_BYTES);
    localparam int unsigned STAGE = ROW / 32 % LEAVERS;
    assign write_o[u] = leaving_q[STAGE] & (tag_q[STAGE].set == SET_WIDTH'(ROW / 32));
    assign slot_o[u]  = tag_q[STAGE].slot;
    assign entry_o[u] = step_q[STAGE];
    assign code_o[u]  = half[STAGE] ? four[STAGE][OTHER%32/4] : four[STAGE][ROW%32/4];
    for (genvar h = 0; h < int'(HALVES); h++) begin : g_half
      localparam int unsigned FIRST = (h == 0) ? ROW : OTHER;
      assign write_meta_o[u][h] = begins_q & ~values_i & (begun_set_q == SET_WIDTH'(ROW / 32));
      for (genvar r = 0; r < 4; r++) begin : g_row
        assign metadata_o[u][4*h+r] = {exp_o[FIRST%32+r], 16'd0};
      end
    end
  end

endmodule
