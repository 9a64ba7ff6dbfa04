// The order in which everything is multiplied. For each unit in the unit buffer and each pair of rows of src (tokens) it
// reads two blocks of the activation buffer, quantises them and offers them as the operand of one block product.
//
//   packed weights, keys   for each row tile, for each block of 32 k, for each pair
//   values                 for each block of 32 tokens, for each row tile, for each pair
//
// so `outer` counts tiles and `inner` blocks of a tile, or the other way round; only sums over `outer` (values) or
// `inner` (else) are sums along k. An unpaired token goes alone.
//
// Values have exponents of their own for each 32 columns: P is quantised for each such part of a tile, and an operand
// has a set of mantissas for each. Several heads may share a unit of values, each with its batch of P. Otherwise all sets
// are the same.
module activation_feed #(
    parameter int unsigned UNITS = 2,
    parameter int unsigned ENTRIES = 256,
    parameter int unsigned GROUP_WIDTH = 8,
    parameter int unsigned SLOT_WIDTH = 3,
    parameter int unsigned TILE = 16,           // rows
    localparam int unsigned ENTRY_WIDTH = $clog2(ENTRIES),
    localparam int unsigned PARTS = (TILE < 32) ? 32 / TILE : 1,  // row tiles of a block of values
    localparam int unsigned SETS = (TILE > 32) ? TILE / 32 : 1,   // blocks of values in a row tile
    localparam int unsigned SET_WIDTH = mem_pkg::index_width(SETS),
    localparam int unsigned POWER_WIDTH = $clog2(SETS) + SLOT_WIDTH,
    localparam int unsigned PIECE_WIDTH = mem_pkg::index_width((UNITS < 4) ? 4 / UNITS : 1),
    localparam int unsigned BLOCKS_WIDTH = $clog2((UNITS > 4) ? UNITS / 4 : 1) + 1,
    localparam int unsigned DEPTH = 4           // operands under way
) (
    input  logic                         clk_i,
    input  logic                         rst_i,
    // a command; steady until the next start
    input  logic                         start_i,
    input  logic                         values_i,
    input  logic                         pieces_i,        // see activation_load
    input  logic [1:0]                   places_i,
    input  logic [1:0]                   heads_i,         // values: of a unit, log2
    input  logic                         eight_i,
    input  logic                         acc_in_i,
    input  logic                         acc_out_i,
    input  logic signed [4:0]            unit_exponent_i,
    input  logic [11:0]                  batch_i,
    input  logic [ENTRY_WIDTH:0]         rows_i,
    input  logic [23:0]                  outer_i,
    input  logic [23:0]                  inner_i,
    input  logic [23:0]                  result_tiles_i,  // values: tiles of n; those behind it are padding
    input  logic [23:0]                  n_blocks_i,      // ceil(n / 32)
    input  logic [5:0]                   tail_i,          // elements of the last block along k, 1..32
    output logic                         idle_o,
    // activation_load
    input  logic                         write_i,
    input  logic [PIECE_WIDTH-1:0]       write_piece_i,
    input  logic [ENTRY_WIDTH-1:0]       write_entry_i,
    input  logic [BLOCKS_WIDTH-1:0]      write_blocks_i,
    input  logic [UNITS*128-1:0]         write_data_i,
    input  logic                         set_done_i,
    output logic [2:0]                   set_free_o,      // sets of activations that are done with
    // unit buffer; kv_unpack, kv_blocks
    input  logic [2:0]                   push_i,
    input  logic [7:0]                   exp_valid_i,  // of four tokens each
    input  logic [SLOT_WIDTH-1:0]        exp_slot_i,
    input  logic [SET_WIDTH-1:0]         exp_set_i,
    input  logic [31:0][7:0]             exp_i,
    // the operand
    output logic                         valid_o,
    input  logic                         take_i,
    output logic [SETS-1:0][1:0][31:0][11:0] mantissa_o,
    output logic [SETS-1:0][1:0][7:0]    exp_o,
    output logic [1:0][17:0]             sum_o,
    output logic                         single_o,   // one token; what stands for the second means nothing
    output logic                         fresh_o,    // see matrix_control
    output logic                         load_o,
    output logic                         keep_o,
    output logic                         result_o,
    output logic                         release_o,
    output logic [SLOT_WIDTH-1:0]        slot_o,
    output logic [GROUP_WIDTH-1:0]       group_o,
    output logic [GROUP_WIDTH-1:0]       held_group_o
);

  // Order
  logic                   active_q, second_q, start_q;
  logic [11:0]            batch_q;
  logic [23:0]            outer_q, inner_q;
  logic [ENTRY_WIDTH:0]   row_q;         // of the pair's first token
  logic [ENTRY_WIDTH-1:0] entry_q, next_entry, stride, place_q, next_place;  // place: of the set
  logic [ENTRY_WIDTH-1:0] next_block;    // along k, of the set
  logic [GROUP_WIDTH-1:0] pair_q, base_q;
  logic [SLOT_WIDTH-1:0]  slot_q;
  logic [SLOT_WIDTH:0]    units_q;
  logic [3:0]             sets_q;
  logic [2:0]             free_q;        // room for operands
  logic                   issue, pair_begin, pair_done, unit_done, inner_last, outer_last, batch_last, lonely;
  logic [SET_WIDTH-1:0]   set_q;         // of the token,
  logic [23:0]            part_q;        // of the head
  logic [2:0]             head_q, heads;
  logic [ENTRY_WIDTH-1:0] head_entry_q, place;  // from the unit's first head to this one; between heads
  logic                   head_done, set_free;
  logic [23:0]            parts_left_q;  // values: blocks of 32 columns from this tile on
  logic                   set_last;

  assign heads      = matrix_pkg::heads_here(heads_i, batch_i - batch_q);
  assign place      = ENTRY_WIDTH'(ENTRIES >> places_i);
  assign head_done  = ~values_i | (set_q == SET_WIDTH'(SETS - 1)) | (part_q + 24'd1 == parts_left_q);
  assign set_last   = head_done & (head_q + 3'd1 == heads);
  assign pair_begin = ~second_q & (set_q == '0);
  assign issue      = active_q & (~pair_begin | (units_q != 0 && sets_q >= 4'(heads) && free_q != 0));
  assign lonely     = (row_q + 1'b1 >= rows_i);  // the pair has one token
  assign pair_done  = issue & (second_q | lonely) & set_last;
  assign unit_done  = pair_done & (row_q + (ENTRY_WIDTH + 1)'(2) >= rows_i);
  assign inner_last = (inner_q + 24'd1 == inner_i);
  assign outer_last = (outer_q + 24'd1 == outer_i);
  assign batch_last = (batch_q + 12'(heads) == batch_i);
  assign set_free   = unit_done & inner_last & (pieces_i | outer_last);
  assign set_free_o = set_free ? heads : '0;
  assign stride     = pieces_i ? ENTRY_WIDTH'(1) : values_i ? ENTRY_WIDTH'(outer_i) : ENTRY_WIDTH'(inner_i);

  // where the next unit's first block stands
  always_comb begin
    if (values_i) next_block = pieces_i ? '0 : ENTRY_WIDTH'(inner_last ? outer_q + 24'd1 : outer_q);
    else next_block = inner_last ? '0 : ENTRY_WIDTH'(inner_q + 24'd1);
    next_place = set_free ? place_q + head_entry_q + place : place_q;
    next_entry = set_free ? next_place : place_q + next_block;
  end

  always_ff @(posedge clk_i) begin
    start_q <= start_i;
    if (start_i) begin
      active_q  <= 1'b1;
      second_q  <= 1'b0;
      place_q   <= '0;
      batch_q   <= '0;
      outer_q   <= '0;
      inner_q   <= '0;
      row_q     <= '0;
      entry_q   <= '0;
      pair_q    <= '0;
      base_q    <= '0;
      slot_q    <= '0;
      set_q     <= '0;
      part_q    <= '0;
      head_q    <= '0;
      head_entry_q <= '0;
      parts_left_q <= n_blocks_i;
    end else if (issue) begin
      set_q  <= set_q + 1'b1;
      part_q <= head_done ? '0 : part_q + 24'd1;
      if (head_done) begin
        set_q        <= SET_WIDTH'((32'(head_q) + 32'd1) * (SETS >> heads_i));
        head_q       <= head_q + 3'd1;
        head_entry_q <= head_entry_q + place;
      end
      if (set_last) begin
        set_q        <= '0;
        head_q       <= '0;
        head_entry_q <= '0;
        second_q <= ~second_q & ~lonely;
        entry_q  <= entry_q + stride;
      end
      if (pair_done) begin
        row_q  <= row_q + (ENTRY_WIDTH + 1)'(2);
        pair_q <= pair_q + 1'b1;
      end
      if (unit_done) begin
        row_q   <= '0;
        pair_q  <= '0;
        entry_q <= next_entry;
        place_q <= next_place;
        slot_q  <= slot_q + 1'b1;
        inner_q <= inner_last ? '0 : inner_q + 24'd1;
        parts_left_q <= inner_last ? n_blocks_i : parts_left_q - 24'(SETS);
        if (values_i || inner_last) base_q <= base_q + pair_q + 1'b1;
        if (inner_last) begin
          outer_q   <= outer_last ? '0 : outer_q + 24'd1;
          if (values_i) base_q <= '0;
          if (outer_last) begin
            batch_q  <= batch_q + 12'(heads);
            base_q   <= '0;
            active_q <= ~batch_last;
          end
        end
      end
    end
    units_q <= units_q + (SLOT_WIDTH + 1)'(push_i) - (SLOT_WIDTH + 1)'(unit_done);
    sets_q  <= sets_q + 4'(set_done_i) - 4'(set_free_o);
    free_q  <= free_q - 3'(issue && pair_begin) + 3'(take_i);
    if (rst_i || start_i) begin
      units_q <= '0;
      sets_q  <= '0;
      free_q  <= 3'(DEPTH);
    end
    if (rst_i) active_q <= 1'b0;
  end
  assign idle_o = ~active_q & ~start_q & (free_q == 3'(DEPTH));

  // The block, and the exponents of the tokens' values, by slot of the block's first unit.
  logic [31:0][15:0]     raw, block;
  logic [31:0][7:0]      power_q;
  logic [SLOT_WIDTH-1:0] first_slot;
  activation_buffer #(.UNITS(UNITS), .ENTRIES(ENTRIES)) u_buffer (
      .clk_i, .write_i, .piece_i(write_piece_i), .entry_i(write_entry_i), .blocks_i(write_blocks_i),
      .data_i(write_data_i), .read_entry_i(entry_q + head_entry_q), .block_o(raw));
  assign first_slot = slot_q & ~SLOT_WIDTH'(PARTS - 1);
  for (genvar g = 0; g < 8; g++) begin : g_power
    logic [3:0][7:0] powers [SETS*2**SLOT_WIDTH];
    always_ff @(posedge clk_i) begin
      if (exp_valid_i[g]) powers[POWER_WIDTH'({exp_set_i, exp_slot_i})] <= exp_i[4*g+:4];
      power_q[4*g+:4] <= values_i ? powers[POWER_WIDTH'({set_q, first_slot})] : '0;
    end
  end

  // What lies past k is zero.
  logic [5:0]  count_q;
  logic        issued_q;
  always_ff @(posedge clk_i) begin
    issued_q <= ~rst_i & ~start_i & issue;
    count_q  <= (values_i ? outer_last : inner_last) ? tail_i : 6'd32;
  end
  always_comb for (int i = 0; i < 32; i++) block[i] = (6'(i) < count_q) ? raw[i] : '0;

  logic              quantized;
  logic [31:0][11:0] mantissa;
  logic signed [7:0] exp;
  logic [17:0]       sum;
  activation_quantizer u_quantizer (
      .clk_i, .rst_i(rst_i | start_i), .eight_i, .valid_i(issued_q), .x_i(block), .power_i(power_q),
      .valid_o(quantized), .mantissa_o(mantissa), .exp_o(exp), .sum_o(sum));

  // Which part of its operand a block is; it may serve all sets.
  logic                 token, done;
  logic [SET_WIDTH-1:0] set;
  delay_line #(.WIDTH(2 + SET_WIDTH), .CYCLES(1 + fp_pkg::BLOCK_LATENCY)) u_beside_quantizer (
      .clk_i, .value_i({second_q, pair_done, set_q}), .value_o({token, done, set}));

  // Operands wait; what they belong to was noted when they were issued.
  typedef struct packed {
    logic                   single;
    logic                   fresh;
    logic                   load;
    logic                   keep;
    logic                   result;
    logic                   release_unit;
    logic [SLOT_WIDTH-1:0]  slot;
    logic [GROUP_WIDTH-1:0] group;
    logic [GROUP_WIDTH-1:0] held_group;
  } tag_t;
  tag_t       tags [DEPTH], tag, head_tag;
  logic [1:0] tag_in_q, in_q, out_q;
  logic [2:0] ready_q;
  logic       first, last;

  assign first            = values_i ? (outer_q == 0) : (inner_q == 0);
  assign last             = values_i ? outer_last : inner_last;
  assign tag.single       = lonely;
  assign tag.fresh        = first & ~acc_in_i;
  assign tag.load         = first & acc_in_i;
  assign tag.keep         = last & acc_out_i;
  assign tag.result       = last & ~acc_out_i & (~values_i | (inner_q < result_tiles_i));
  assign tag.release_unit = unit_done;
  assign tag.slot         = slot_q;
  assign tag.group        = values_i ? base_q + pair_q : pair_q;
  assign tag.held_group   = base_q + pair_q;

  for (genvar t = 0; t < 2; t++) begin : g_token
    for (genvar s = 0; s < int'(SETS); s++) begin : g_set
      logic [31:0][11:0] mantissas [DEPTH];
      logic [7:0]        exps [DEPTH];
      always_ff @(posedge clk_i)
        if (quantized && token == 1'(t) && (!values_i || set == SET_WIDTH'(s))) begin
          mantissas[in_q] <= mantissa;
          exps[in_q]      <= exp + 8'(unit_exponent_i);
        end
      assign mantissa_o[s][t] = mantissas[out_q];
      assign exp_o[s][t]      = exps[out_q];
    end
    logic [17:0] sums [DEPTH];
    always_ff @(posedge clk_i) if (quantized && token == 1'(t)) sums[in_q] <= sum;
    assign sum_o[t] = sums[out_q];
  end

  always_ff @(posedge clk_i) begin
    if (pair_done) begin
      tags[tag_in_q] <= tag;
      tag_in_q       <= tag_in_q + 2'd1;
    end
    if (quantized && done) in_q <= in_q + 2'd1;
    if (take_i) out_q <= out_q + 2'd1;
    ready_q <= ready_q + 3'(quantized & done) - 3'(take_i);
    if (rst_i || start_i) begin
      tag_in_q <= '0;
      in_q     <= '0;
      out_q    <= '0;
      ready_q  <= '0;
    end
  end

  assign valid_o  = (ready_q != 0);
  assign head_tag = tags[out_q];
  assign {single_o, fresh_o, load_o, keep_o, result_o, release_o, slot_o, group_o, held_group_o} = head_tag;

endmodule
