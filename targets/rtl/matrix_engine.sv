// The matrix engine: executes LINEAR (doc/isa, doc/numerics.md section 3). doc/hardware.md draws its datapath.
//
// One command at a time. Its parts run decoupled, each with its own loops over batches, tiles and rows, and wait for
// each other only where a buffer is full or empty; there is no other sequencer. Weights of the next command are asked
// for as soon as those of this one were (linear_prepare).
//
// `done_o` comes when memory has acknowledged every byte. An error of the command's fields comes instead, before
// anything is written. After an error of the bus the engine swallows what memory still delivers and takes no
// command until a reset.
module matrix_engine #(
    parameter int unsigned UNITS = 2,        // 16 bytes each, of a beat of activations, operands and results
    parameter int unsigned WEIGHT_UNITS = UNITS,  // of a beat of weights
    parameter int unsigned PORT_BYTES = 16,  // of a channel in a beat row of the weights: a power of two up to 64
    parameter int unsigned HALVES = 2,       // 1: a beat of weights is two beat rows
    parameter int unsigned SHARE = 1,        // 2: wide formats at half rate, in half of the lanes (matrix_quad)
    parameter int unsigned LANES = UNITS,    // of the epilogue
    parameter int unsigned ACTIVATION_ELEMENTS = 8192,
    parameter int unsigned ACCUMULATORS = 4096,
    parameter int unsigned ROWS_MOST = ACTIVATION_ELEMENTS / 32,  // rows of a command; more are an error of `buffer`
    parameter int unsigned RESULT_BLOCKS = 4,  // pairs of tokens whose results of a row tile wait for the epilogue
    localparam int unsigned CLIENTS = 2      // activations, operands of the epilogue
) (
    input  logic                              clk_i,
    input  logic                              rst_i,
    // command
    input  logic                              cmd_valid_i,   // the next command is there: it may be checked, fetched for
    output logic                              cmd_ready_o,   // it is not looked at any more
    input  logic                              cmd_turn_i,    // the oldest that has not begun may
    output logic                              cmd_begin_o,   // and does
    input  logic                              cmd_drop_i,    // those that have not begun are forgotten
    input  logic [7:0]                        cmd_opcode_i,
    input  logic [31:0]                       cmd_word_i [dlavm_isa_pkg::LINEAR_WORDS],
    output logic                              done_o,
    output logic                              error_o,
    output logic [3:0]                        error_code_o,
    // read client of weights
    output logic                              wt_req_valid_o,
    input  logic                              wt_req_ready_i,
    output logic [39:0]                       wt_req_addr_o,
    output logic [23:0]                       wt_req_units_o,
    input  logic                              wt_valid_i,
    output logic                              wt_ready_o,
    input  logic [WEIGHT_UNITS*128-1:0]       wt_data_i,
    input  logic                              wt_last_i,
    input  logic                              wt_error_i,
    // other read clients
    output logic [CLIENTS-1:0]                rd_req_valid_o,
    input  logic [CLIENTS-1:0]                rd_req_ready_i,
    output logic [CLIENTS-1:0][39:0]          rd_req_addr_o,
    output logic [CLIENTS-1:0][23:0]          rd_req_units_o,
    input  logic [CLIENTS-1:0]                rd_valid_i,
    output logic [CLIENTS-1:0]                rd_ready_o,
    input  logic [CLIENTS-1:0][UNITS*128-1:0] rd_data_i,
    input  logic [CLIENTS-1:0]                rd_last_i,
    input  logic [CLIENTS-1:0]                rd_error_i,
    // write client
    output logic                              wr_req_valid_o,
    input  logic                              wr_req_ready_i,
    output logic [39:0]                       wr_req_addr_o,
    output logic [23:0]                       wr_req_units_o,
    output logic                              wr_valid_o,
    input  logic                              wr_ready_i,
    output logic [UNITS*128-1:0]              wr_data_o,
    output logic [UNITS*16-1:0]               wr_strb_o,
    input  logic                              wr_idle_i,
    input  logic                              wr_error_i,
    // activation tables: a reader a lane of the epilogue, answered a cycle later with {base, slope}
    output logic [1:0]                        act_slot_o,
    output logic [LANES-1:0][10:0]            act_index_o,
    input  logic [LANES-1:0][63:0]            act_pair_i
);

  import dlavm_isa_pkg::*;
  import dlavm_formats_pkg::*;
  import matrix_pkg::*;

  localparam int unsigned TILE = 4 * HALVES * WEIGHT_UNITS;
  localparam int unsigned SETS = (TILE > 32) ? TILE / 32 : 1;
  localparam int unsigned PARTS = (TILE < 32) ? 32 / TILE : 1;
  localparam int unsigned SET_WIDTH = mem_pkg::index_width(SETS);
  // Heads that may share a unit of values, log2: up to four, each with whole beats of dst.
  localparam int unsigned SETS_OF_BEAT = (UNITS > 4) ? UNITS / 4 : 1;
  localparam int unsigned MOST_HEADS = (SETS >= 4 * SETS_OF_BEAT) ? 2 : (SETS >= 2 * SETS_OF_BEAT) ? 1 : 0;
  localparam int unsigned ROW_WIDTH = $clog2(4 * HALVES);
  localparam int unsigned UNIT_ENTRY_WIDTH = ROW_WIDTH + 1;
  localparam int unsigned ENTRIES = ACTIVATION_ELEMENTS / 32;
  localparam int unsigned ENTRY_WIDTH = $clog2(ENTRIES);
  // Of a quad and token. Tokens go in pairs and columns in tiles, so that twice the accumulators are needed for the
  // worst shape, and at least a tile of all rows.
  localparam int unsigned GROUPS = (ACCUMULATORS / TILE > ROWS_MOST / 2) ? ACCUMULATORS / TILE : ROWS_MOST / 2;
  localparam int unsigned GROUP_WIDTH = $clog2(GROUPS);
  localparam int unsigned LINES = 4 * HALVES * 2 ** GROUP_WIDTH;
  // Of units in the unit buffer. Wide boards fill one in fewer cycles than it takes from its first beat to its last product.
  localparam int unsigned SLOT_WIDTH = (WEIGHT_UNITS >= 8) ? 4 : 3;
  localparam int unsigned ACTIVATIONS = 0, OPERANDS = 1;

  if (HALVES != 2 && (HALVES != 1 || WEIGHT_UNITS < 8)) begin : g_halves
    $error("two beat rows in a beat of weights need at least 8 units");
  end
  if (UNITS > WEIGHT_UNITS * HALVES / 2 || PORT_BYTES > 64) begin : g_units
    $error("a beat has no more than a beat row of weights, that of a channel no more than 64 bytes");
  end
  if (RESULT_BLOCKS < 2 || RESULT_BLOCKS != 2 ** $clog2(RESULT_BLOCKS)) begin : g_results
    $error("blocks of results are a power of two");
  end
  if (2 * (ACCUMULATORS / 32) > ENTRIES) begin : g_values
    $error("two blocks of 32 tokens of P have no room in the activation buffer");
  end

  // -- The command ------------------------------------------------------------------------------------------------

  typedef enum logic [1:0] {IDLE, RUN, HALT} state_e;
  state_e      state_q;
  logic        bus_error, quiet, start, over, clear, finished, fetched, mine, drop, wt_valid;
  logic [2:0]  quiet_q;
  logic [31:0] weight_unit;
  error_e      check_error;
  job_t        job;

  linear_prepare #(.ROW_UNITS(WEIGHT_UNITS * HALVES / 2), .TILE(TILE), .ACTIVATION_ELEMENTS(ACTIVATION_ELEMENTS),
                   .ACCUMULATORS(ACCUMULATORS), .ROWS_MOST(ROWS_MOST), .SETS(SETS), .MOST_HEADS(MOST_HEADS)) u_prepare (
      .clk_i, .rst_i(rst_i | (state_q == HALT)), .cmd_valid_i, .cmd_turn_i, .cmd_drop_i, .cmd_ready_o, .cmd_opcode_i,
      .cmd_word_i, .free_i(state_q == IDLE), .start_o(start), .over_o(over), .error_o(check_error), .job_o(job),
      .fetched_o(fetched),
      .req_valid_o(wt_req_valid_o), .req_ready_i(wt_req_ready_i), .req_unit_o(weight_unit),
      .req_units_o(wt_req_units_o), .last_i(wt_valid_i && wt_ready_o && wt_last_i), .mine_o(mine), .drop_o(drop));

  format_t     format;
  logic        keys, values, bytes, pieces;
  logic [1:0]  places, heads;
  logic        ordered;
  logic [23:0] rows, k_blocks, n_blocks, tiles, k, n;
  logic [5:0]  k_tail, n_tail;
  logic [11:0] rows_i, batch;
  logic [31:0] word0;
  logic [LINEAR_WORDS-1:0][31:0] words;
  logic        acc_in, acc_out, mul_aux, add_aux;
  assign {format, keys, values, bytes} = {job.format, job.keys, job.values, job.bytes};
  assign {rows, k_blocks, n_blocks, tiles} = {job.rows, job.k_blocks, job.n_blocks, job.tiles};
  assign {k_tail, n_tail} = {job.k_tail, job.n_tail};
  assign {pieces, places, heads, ordered} = {job.pieces, job.places, job.heads, job.ordered};
  assign words   = job.words;
  assign word0   = words[0];
  assign rows_i  = words[LINEAR_ROWS_I_WORD][11:0];
  assign batch   = words[LINEAR_BATCH_WORD][11:0];
  assign k       = words[LINEAR_K_WORD][23:0];
  assign n       = words[LINEAR_N_WORD][23:0];
  assign acc_in  = word0[LINEAR_ACC_IN_LSB];
  assign acc_out = word0[LINEAR_ACC_OUT_LSB];
  assign mul_aux = (word0[LINEAR_AUX_MODE_LSB+:2] == AUX_MODE_MUL);
  assign add_aux = (word0[LINEAR_AUX_MODE_LSB+:2] == AUX_MODE_ADD);

  assign cmd_begin_o = start | over;
  assign bus_error = (state_q == RUN) & (|(rd_valid_i & rd_error_i) | (wt_valid & wt_error_i) | wr_error_i);
  assign clear     = rst_i | (state_q != RUN);
  // An engine that has just been started, or a write that has just been handed over, shows itself a cycle later.
  assign finished  = (state_q == RUN) & quiet & (&quiet_q);

  always_ff @(posedge clk_i) begin
    done_o  <= 1'b0;
    error_o <= 1'b0;
    quiet_q <= (state_q == RUN) ? {quiet_q[1:0], quiet} : '0;
    case (state_q)
      IDLE: begin
        if (start) state_q <= RUN;
        if (over) begin
          done_o       <= (check_error == ERROR_NONE);
          error_o      <= (check_error != ERROR_NONE);
          error_code_o <= check_error;
        end
      end
      RUN:
      if (bus_error) begin
        state_q      <= HALT;
        error_o      <= 1'b1;
        error_code_o <= ERROR_BUS;
      end else if (finished) begin
        state_q <= IDLE;
        done_o  <= 1'b1;
      end
      default: ;
    endcase
    if (rst_i) begin
      state_q <= IDLE;
      done_o  <= 1'b0;
      error_o <= 1'b0;
    end
  end

  // -- Weights ----------------------------------------------------------------------------------------------------

  logic                             unpack_ready, kv_ready, short_slots, unit_release, cache;
  logic [SLOT_WIDTH-1:0]            first_slot, begun_slot, read_slot, meta_slot;
  logic [WEIGHT_UNITS-1:0][SLOT_WIDTH-1:0]       kv_slot;
  logic [WEIGHT_UNITS-1:0][UNIT_ENTRY_WIDTH-1:0] kv_entry;
  logic [SLOT_WIDTH:0]              room;
  logic [2:0]                       push, kv_push;
  logic                             unpack_push;
  logic [WEIGHT_UNITS-1:0]          unpack_write, kv_write;
  logic [UNIT_ENTRY_WIDTH-1:0]      unpack_entry, read_entry;
  logic [WEIGHT_UNITS-1:0][3:0][3:0][11:0]     unpack_code, kv_code, code;
  logic [WEIGHT_UNITS-1:0][HALVES-1:0]         unpack_write_meta, kv_write_meta;
  logic [WEIGHT_UNITS-1:0][4*HALVES-1:0][23:0] unpack_metadata, kv_metadata, metadata;
  logic [7:0]                       exp_valid;  // of the tokens' values
  logic [SET_WIDTH-1:0]             exp_set;
  logic [31:0][7:0]                 token_exp;
  assign cache       = keys | values;
  assign short_slots = format.element inside {ELEMENT_INT4, ELEMENT_E2M1, ELEMENT_E2M3};
  assign push        = cache ? kv_push : {2'd0, unpack_push};
  assign wt_valid    = wt_valid_i & mine;

  weight_unpack #(.UNITS(WEIGHT_UNITS), .PORT_BYTES(PORT_BYTES), .HALVES(HALVES)) u_unpack (
      .clk_i, .rst_i, .clear_i(clear), .enable_i(state_q == RUN && !cache), .element_i(format.element),
      .group_blocks_i(format.group_blocks), .e8m0_i(format.e8m0), .zero_i(format.zero), .blocks_i(k_blocks),
      .valid_i(wt_valid), .ready_o(unpack_ready), .beat_i(wt_data_i), .room_i(room != 0),
      .write_o(unpack_write), .entry_o(unpack_entry), .code_o(unpack_code), .write_meta_o(unpack_write_meta),
      .metadata_o(unpack_metadata), .push_o(unpack_push));

  if (TILE >= 32) begin : g_blocks
    logic exp_now, beat_valid, beat_ready;
    logic [WEIGHT_UNITS*128-1:0] beat;
    if (SETS > 1) begin : g_order
      block_order #(.UNITS(WEIGHT_UNITS), .SETS(SETS)) u_order (
          .clk_i, .clear_i(clear), .enable_i(state_q == RUN && cache), .ordered_i(ordered), .values_i(values),
          .token_blocks_i(keys ? n_blocks : k_blocks), .dim_blocks_i(keys ? k_blocks : n_blocks), .batch_i(batch),
          .heads_i(heads), .valid_i(wt_valid), .ready_o(kv_ready), .beat_i(wt_data_i), .valid_o(beat_valid),
          .ready_i(beat_ready), .beat_o(beat));
    end else begin : g_straight
      assign {beat_valid, kv_ready, beat} = {wt_valid, beat_ready, wt_data_i};
      logic unused_ordered;
      assign unused_ordered = ordered;
    end
    kv_blocks #(.UNITS(WEIGHT_UNITS), .PORT_BYTES(PORT_BYTES), .HALVES(HALVES), .SLOT_WIDTH(SLOT_WIDTH)) u_kv (
        .clk_i, .rst_i, .clear_i(clear), .enable_i(state_q == RUN && cache), .values_i(values), .bytes_i(bytes),
        .key_blocks_i(n_blocks), .token_blocks_i(k_blocks), .batch_i(batch), .heads_i(heads),
        .dim_blocks_i(keys ? k_blocks : n_blocks), .dim_tail_i(keys ? k_tail : n_tail),
        .valid_i(beat_valid), .ready_o(beat_ready), .beat_i(beat), .room_i(room), .write_o(kv_write),
        .slot_o(kv_slot), .entry_o(kv_entry), .code_o(kv_code), .write_meta_o(kv_write_meta), .meta_slot_o(begun_slot),
        .metadata_o(kv_metadata), .exp_valid_o(exp_now), .exp_set_o(exp_set), .exp_o(token_exp), .push_o(kv_push[0]));
    assign exp_valid    = {8{exp_now}};
    assign kv_push[2:1] = '0;
  end else begin : g_tokens
    logic unused_ordered;
    assign unused_ordered = ordered;
    logic [SLOT_WIDTH-1:0]       slot_of_all;
    logic [UNIT_ENTRY_WIDTH-1:0] entry_of_all;
    kv_unpack #(.UNITS(WEIGHT_UNITS), .PORT_BYTES(PORT_BYTES), .SLOT_WIDTH(SLOT_WIDTH)) u_kv (
        .clk_i, .rst_i, .clear_i(clear), .enable_i(state_q == RUN && cache), .values_i(values), .bytes_i(bytes),
        .tiles_i(tiles), .dim_blocks_i(keys ? k_blocks : n_blocks), .dim_tail_i(keys ? k_tail : n_tail),
        .valid_i(wt_valid), .ready_o(kv_ready), .beat_i(wt_data_i), .slot_i(first_slot), .room_i(room),
        .write_o(kv_write), .slot_o(slot_of_all), .entry_o(entry_of_all), .code_o(kv_code), .write_meta_o(kv_write_meta),
        .metadata_o(kv_metadata), .exp_valid_o(exp_valid), .exp_o(token_exp), .push_o(kv_push));
    assign exp_set    = '0;
    assign kv_slot    = {WEIGHT_UNITS{slot_of_all}};
    assign kv_entry   = {WEIGHT_UNITS{entry_of_all}};
    assign begun_slot = first_slot;
  end

  unit_buffer #(.UNITS(WEIGHT_UNITS), .HALVES(HALVES), .SLOTS(2 ** SLOT_WIDTH)) u_units (
      .clk_i, .rst_i(clear), .short_i(short_slots), .write_slot_o(first_slot), .room_o(room),
      .write_i(cache ? kv_write : unpack_write), .write_slot_i(cache ? kv_slot : {WEIGHT_UNITS{first_slot}}),
      .write_entry_i(cache ? kv_entry : {WEIGHT_UNITS{unpack_entry}}), .code_i(cache ? kv_code : unpack_code),
      .write_meta_i(cache ? kv_write_meta : unpack_write_meta), .meta_slot_i(cache ? begun_slot : first_slot),
      .metadata_i(cache ? kv_metadata : unpack_metadata), .push_i(push), .read_slot_i(read_slot),
      .read_entry_i(read_entry), .code_o(code), .read_meta_slot_i(meta_slot), .metadata_o(metadata),
      .release_i(unit_release));

  // -- Activations ------------------------------------------------------------------------------------------------

  logic                   load_idle, feed_idle, set_done, operand_valid, operand_take;
  logic [2:0]             set_free;
  logic                   single, fresh, load, keep, result, release_last;
  logic                   load_write;
  logic [ENTRY_WIDTH-1:0] load_entry;
  logic [mem_pkg::index_width((UNITS < 4) ? 4 / UNITS : 1)-1:0] load_piece;
  logic [$clog2((UNITS > 4) ? UNITS / 4 : 1):0] load_blocks;
  logic [SETS-1:0][1:0][31:0][11:0] mantissa;
  logic [SETS-1:0][1:0][7:0] exp;
  logic [1:0][17:0]       sum;
  logic [SLOT_WIDTH-1:0]  slot;
  logic [GROUP_WIDTH-1:0] group, held_group;
  logic [31:0]            activation_unit;
  logic                   load_ready;

  // Row tiles of a block of 32 tokens: where a tile is smaller than a block of elements, whole blocks of them.
  logic [23:0] value_tiles;
  assign value_tiles = (PARTS > 1) ? 24'(n_blocks * PARTS) : tiles;

  activation_load #(.UNITS(UNITS), .ENTRIES(ENTRIES)) u_load (
      .clk_i, .rst_i(rst_i | (state_q == HALT)), .start_i(start), .pieces_i(pieces),
      .places_i(places), .src_i(words[LINEAR_SRC_WORD]), .src_so_i(words[LINEAR_SRC_SO_WORD]),
      .src_si_i(words[LINEAR_SRC_SI_WORD]), .src_b_i(words[LINEAR_SRC_B_WORD]), .rows_i_i(rows_i),
      .rows_all_i(rows), .k_i(k), .k_blocks_i(k_blocks), .batch_i(batch), .idle_o(load_idle),
      .req_valid_o(rd_req_valid_o[ACTIVATIONS]), .req_ready_i(rd_req_ready_i[ACTIVATIONS]),
      .req_unit_o(activation_unit), .req_units_o(rd_req_units_o[ACTIVATIONS]),
      .valid_i(rd_valid_i[ACTIVATIONS] & load_ready), .ready_o(load_ready), .last_i(rd_last_i[ACTIVATIONS]),
      .write_o(load_write), .piece_o(load_piece), .entry_o(load_entry), .blocks_o(load_blocks), .set_done_o(set_done), .set_free_i(set_free));

  activation_feed #(.UNITS(UNITS), .ENTRIES(ENTRIES), .GROUP_WIDTH(GROUP_WIDTH), .SLOT_WIDTH(SLOT_WIDTH),
                    .TILE(TILE)) u_feed (
      .clk_i, .rst_i(rst_i | (state_q == HALT)), .start_i(start), .values_i(values), .pieces_i(pieces), .places_i(places),
      .heads_i(heads), .eight_i(word0[LINEAR_ACT_BITS_LSB] == ACT_BITS_B8), .acc_in_i(acc_in), .acc_out_i(acc_out),
      .unit_exponent_i(format.unit_exponent), .batch_i(batch), .rows_i(rows[ENTRY_WIDTH:0]),
      .outer_i(values ? k_blocks : tiles), .inner_i(values ? value_tiles : k_blocks), .result_tiles_i(tiles),
      .n_blocks_i(n_blocks), .tail_i(k_tail), .idle_o(feed_idle), .write_i(load_write), .write_piece_i(load_piece),
      .write_entry_i(load_entry), .write_blocks_i(load_blocks), .write_data_i(rd_data_i[ACTIVATIONS]),
      .set_done_i(set_done), .set_free_o(set_free), .push_i(push), .exp_valid_i(exp_valid), .exp_slot_i(begun_slot),
      .exp_set_i(exp_set), .exp_i(token_exp),
      .valid_o(operand_valid), .take_i(operand_take), .mantissa_o(mantissa), .exp_o(exp), .sum_o(sum),
      .single_o(single), .fresh_o(fresh), .load_o(load), .keep_o(keep), .result_o(result), .release_o(release_last), .slot_o(slot), .group_o(group),
      .held_group_o(held_group));

  // -- Products ---------------------------------------------------------------------------------------------------

  logic                        array_idle, result_valid, result_free;
  logic [ROW_WIDTH-1:0]        result_row;
  logic [WEIGHT_UNITS-1:0][1:0][31:0] acc;
  matrix_array #(.UNITS(WEIGHT_UNITS), .PORT_BYTES(PORT_BYTES), .HALVES(HALVES), .SHARE(SHARE), .LINES(LINES),
                 .SLOT_WIDTH(SLOT_WIDTH), .RESULT_BLOCKS(RESULT_BLOCKS)) u_array (
      .clk_i, .rst_i(clear), .element_i(format.element), .e8m0_i(format.e8m0), .zero_i(format.zero), .keys_i(keys),
      .valid_i(operand_valid), .take_o(operand_take), .mantissa_i(mantissa), .exp_i(exp), .sum_i(sum), .single_i(single),
      .fresh_i(fresh), .load_i(load), .keep_i(keep), .result_i(result), .release_i(release_last), .slot_i(slot), .group_i(group),
      .held_group_i(held_group), .read_slot_o(read_slot), .read_entry_o(read_entry), .code_i(code),
      .meta_slot_o(meta_slot), .metadata_i(metadata), .release_o(unit_release), .result_o(result_valid),
      .result_row_o(result_row), .acc_o(acc), .result_free_i(result_free), .idle_o(array_idle));

  // -- Epilogue ---------------------------------------------------------------------------------------------------

  logic        operand_fetch_idle, epilogue_idle, epilogue_ready, begin_epilogue, use_row_scale, use_bias;
  logic [31:0] operand_unit, result_unit;
  assign begin_epilogue = start & ~acc_out;
  assign use_row_scale  = word0[LINEAR_USE_ROW_SCALE_LSB];
  assign use_bias       = word0[LINEAR_USE_BIAS_LSB];
  assign act_slot_o     = word0[LINEAR_ACT_SLOT_LSB+:2];

  epilogue_fetch #(.TILE(TILE)) u_operands (
      .clk_i, .rst_i(rst_i | (state_q == HALT)), .start_i(begin_epilogue), .use_row_scale_i(use_row_scale),
      .use_bias_i(use_bias), .use_aux_i(mul_aux | add_aux), .row_scale_i(words[LINEAR_ROW_SCALE_WORD]),
      .bias_i(words[LINEAR_BIAS_WORD]), .aux_i(words[LINEAR_AUX_WORD]),
      .aux_so_i(words[LINEAR_AUX_SO_WORD]), .aux_si_i(words[LINEAR_AUX_SI_WORD]), .rows_i_i(rows_i),
      .rows_all_i(rows), .n_i(n), .tiles_i(tiles), .batch_i(batch), .heads_i(heads), .idle_o(operand_fetch_idle),
      .req_valid_o(rd_req_valid_o[OPERANDS]), .req_ready_i(rd_req_ready_i[OPERANDS]), .req_unit_o(operand_unit),
      .req_units_o(rd_req_units_o[OPERANDS]));

  epilogue #(.UNITS(UNITS), .QUADS(WEIGHT_UNITS), .PORT_BYTES(PORT_BYTES), .HALVES(HALVES), .LANES(LANES),
             .ROWS_MOST(ROWS_MOST), .RESULT_BLOCKS(RESULT_BLOCKS)) u_epilogue (
      .clk_i, .rst_i(rst_i | (state_q == HALT)), .start_i(begin_epilogue), .use_scale_i(word0[LINEAR_USE_SCALE_LSB]),
      .use_row_scale_i(use_row_scale), .use_bias_i(use_bias), .use_act_i(word0[LINEAR_USE_ACT_LSB]),
      .mul_aux_i(mul_aux), .add_aux_i(add_aux), .scale_i(words[LINEAR_SCALE_WORD]),
      .dst_i(words[LINEAR_DST_WORD]), .dst_so_i(words[LINEAR_DST_SO_WORD]),
      .dst_si_i(words[LINEAR_DST_SI_WORD]), .dst_b_i(words[LINEAR_DST_B_WORD]), .rows_i_i(rows_i),
      .rows_all_i(rows), .n_i(n), .tiles_i(tiles), .batch_i(batch), .heads_i(heads), .idle_o(epilogue_idle), .result_i(result_valid),
      .result_row_i(result_row), .acc_i(acc), .result_free_o(result_free), .valid_i(rd_valid_i[OPERANDS]),
      .ready_o(epilogue_ready), .data_i(rd_data_i[OPERANDS]), .last_i(rd_last_i[OPERANDS]), .act_index_o, .act_pair_i,
      .req_valid_o(wr_req_valid_o), .req_ready_i(wr_req_ready_i), .req_unit_o(result_unit),
      .req_units_o(wr_req_units_o), .valid_o(wr_valid_o), .ready_i(wr_ready_i), .data_o(wr_data_o), .strb_o(wr_strb_o),
      .written_i(wr_idle_i));

  assign wt_req_addr_o = {4'd0, weight_unit, 4'd0};
  assign rd_req_addr_o = {{4'd0, operand_unit, 4'd0}, {4'd0, activation_unit, 4'd0}};
  assign wr_req_addr_o = {4'd0, result_unit, 4'd0};
  assign wt_ready_o    = ((cache ? kv_ready : unpack_ready) & mine) | drop | (state_q == HALT);
  assign rd_ready_o    = {epilogue_ready, load_ready} | {CLIENTS{state_q == HALT}};
  assign quiet         = fetched & load_idle & feed_idle & array_idle & operand_fetch_idle & epilogue_idle;

  // What the parts need of a word is less than the word.
  logic unused_words;
  assign unused_words = &{1'b0, words, format.packed_weights, job.tile_units};

endmodule
