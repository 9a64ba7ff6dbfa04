// The LINEARs that come next: their checks, and the requests of their weights while the one before them still runs.
//
// A command is looked at as soon as the queue shows it (`cmd_valid_i`) and every request of the one before was made.
// Then it waits here, one of up to JOBS, until its turn comes (`cmd_turn_i`) and the engine is free: `start_o` begins
// it; an error of its fields, or that there is nothing to do, is told then too (`over_o`). `job_o` is steady from a
// cycle before until the engine is free again. `cmd_drop_i` drops what has not begun; what was asked for is swallowed.
//
// Beats come in the order of requests; `mine_o` says that the next one belongs to the command that runs.
module linear_prepare #(
    parameter int unsigned ROW_UNITS = 2,       // 16 bytes each, of a beat row of the weights
    parameter int unsigned TILE = 16,           // rows
    parameter int unsigned ACTIVATION_ELEMENTS = 8192,
    parameter int unsigned ACCUMULATORS = 4096,
    parameter int unsigned ROWS_MOST = ACTIVATION_ELEMENTS / 32,
    parameter int unsigned SETS = 1,            // blocks of values in a row tile,
    parameter int unsigned MOST_HEADS = 0,      // and heads, log2
    parameter int unsigned JOBS = 4             // a power of two
) (
    input  logic                  clk_i,
    input  logic                  rst_i,
    input  logic                  cmd_valid_i,
    input  logic                  cmd_turn_i,
    input  logic                  cmd_drop_i,
    output logic                  cmd_ready_o,
    input  logic [7:0]            cmd_opcode_i,
    input  logic [31:0]           cmd_word_i [dlavm_isa_pkg::LINEAR_WORDS],
    input  logic                  free_i,        // no command runs
    output logic                  start_o,
    output logic                  over_o,
    output dlavm_isa_pkg::error_e error_o,       // with `over_o`
    output matrix_pkg::job_t      job_o,
    output logic                  fetched_o,     // every request of the command that runs was made
    // read client of weights: requests, and what is taken of the beats
    output logic                  req_valid_o,
    input  logic                  req_ready_i,
    output logic [31:0]           req_unit_o,
    output logic [23:0]           req_units_o,
    input  logic                  last_i,        // the last beat of a request is taken
    output logic                  mine_o,
    output logic                  drop_o         // beats go nowhere
);

  import dlavm_isa_pkg::*;
  import matrix_pkg::*;

  typedef struct packed {
    error_e error;
    logic   nothing;
    job_t   job;
  } entry_t;

  typedef enum logic [1:0] {EMPTY, CHECK, READY, FETCH} state_e;
  state_e      state_q;
  logic        check_done, nothing, good, push, room, begin_fetch, fetch_idle, cancel, waits, loaded_q;
  logic        asked, dropping_q;
  error_e      check_error;
  job_t        job;
  entry_t      first, entry_q;
  // Commands that wait or run have numbers; that of the one that is fetched for, of the one that runs or ran last.
  // Of each the requests whose last beat was not taken.
  localparam int unsigned NUMBERS = 2 * JOBS, NUMBER = $clog2(NUMBERS);
  logic [NUMBER-1:0] asks_q, runs_q;
  logic [15:0] owed_q [NUMBERS], all_owed_q;
  logic [23:0] acc_rows_q, acc_n_q;           // accumulators that are held when the command that is checked begins,
  logic [23:0] held_rows_q, held_n_q;         // those that are held now

  // -- The command that is shown ------------------------------------------------------------------------------------

  for (genvar i = 0; i < int'(LINEAR_WORDS); i++) begin : g_word
    assign job.words[i] = cmd_word_i[i];
  end

  linear_decode #(.ROW_UNITS(ROW_UNITS), .ACTIVATION_ELEMENTS(ACTIVATION_ELEMENTS), .ACCUMULATORS(ACCUMULATORS),
                  .ROWS_MOST(ROWS_MOST), .SETS(SETS), .MOST_HEADS(MOST_HEADS)) u_decode (
      .clk_i, .rst_i(rst_i | cmd_drop_i), .check_i(state_q == EMPTY && cmd_valid_i && !dropping_q), .word_i(cmd_word_i),
      .acc_rows_i(acc_rows_q), .acc_n_i(acc_n_q), .done_o(check_done), .nothing_o(nothing), .error_o(check_error),
      .format_o(job.format), .keys_o(job.keys), .values_o(job.values), .bytes_o(job.bytes), .rows_o(job.rows),
      .k_blocks_o(job.k_blocks), .n_blocks_o(job.n_blocks), .k_tail_o(job.k_tail), .n_tail_o(job.n_tail),
      .tiles_o(job.tiles), .tile_units_o(job.tile_units), .pieces_o(job.pieces),
      .places_o(job.places), .heads_o(job.heads), .ordered_o(job.ordered));

  assign good        = (check_error == ERROR_NONE) && !nothing && cmd_opcode_i == OP_LINEAR;
  assign push        = (state_q == READY) && room && !cmd_drop_i;
  assign begin_fetch = push && good;
  assign cmd_ready_o = (push && !good) || (state_q == FETCH && fetch_idle);
  assign fetched_o   = (state_q != FETCH) || waits || fetch_idle;
  // The one that is fetched for has begun where none waits.
  assign cancel      = cmd_drop_i && (state_q != FETCH || waits);

  always_ff @(posedge clk_i) begin
    case (state_q)
      EMPTY: if (cmd_valid_i && !dropping_q) state_q <= CHECK;
      CHECK: if (check_done) state_q <= READY;
      READY: if (push) state_q <= good ? FETCH : EMPTY;
      FETCH: if (fetch_idle) state_q <= EMPTY;
    endcase
    if (rst_i || cancel) state_q <= EMPTY;
  end

  // -- Those that wait ----------------------------------------------------------------------------------------------

  fifo #(.WIDTH($bits(entry_t)), .DEPTH(JOBS)) u_jobs (
      .clk_i, .rst_i(rst_i | cmd_drop_i), .valid_i(push), .ready_o(room),
      .data_i({(cmd_opcode_i == OP_LINEAR) ? check_error : ERROR_ILLEGAL_OPCODE, nothing, job}),
      .valid_o(waits), .ready_i(start_o | over_o), .data_o(first));

  // The first of them, a cycle later; it is kept while it runs.
  logic turn, fine;
  assign turn    = cmd_turn_i && free_i && loaded_q;
  assign fine    = (entry_q.error == ERROR_NONE) && !entry_q.nothing;
  assign start_o = turn && fine;
  assign over_o  = turn && !fine;
  assign error_o = entry_q.error;
  assign job_o   = entry_q.job;

  always_ff @(posedge clk_i) begin
    if (free_i) entry_q <= first;
    loaded_q <= free_i && waits && !turn && !cmd_drop_i && !rst_i;
    if (start_o && job_o.words[0][LINEAR_ACC_OUT_LSB]) begin
      held_rows_q <= job_o.rows;
      held_n_q    <= job_o.words[LINEAR_N_WORD][23:0];
    end
    if (begin_fetch && job.words[0][LINEAR_ACC_OUT_LSB]) begin
      acc_rows_q <= job.rows;
      acc_n_q    <= job.words[LINEAR_N_WORD][23:0];
    end
    if (cmd_drop_i) begin
      acc_rows_q <= held_rows_q;
      acc_n_q    <= held_n_q;
    end
    if (rst_i) begin
      {held_rows_q, held_n_q} <= '0;
      {acc_rows_q, acc_n_q}   <= '0;
    end
  end

  // -- Weights ------------------------------------------------------------------------------------------------------

  // Keys too come block of tokens after block of tokens then.
  logic in_memory_order;
  assign in_memory_order = job.keys && job.ordered;

  weight_fetch #(.TILE(TILE)) u_fetch (
      .clk_i, .rst_i(rst_i | cancel), .start_i(begin_fetch), .keys_i(job.keys && !in_memory_order),
      .values_i(job.values || in_memory_order), .together_i(job.ordered && job.values),
      .bytes_i(job.bytes), .wgt_i(cmd_word_i[LINEAR_WGT_WORD]), .wgt_tile_i(cmd_word_i[LINEAR_WGT_TILE_WORD]),
      .wgt_b_i(cmd_word_i[LINEAR_WGT_B_WORD]), .tile_units_i(job.tile_units),
      .tiles_i(job.values ? job.k_blocks : in_memory_order ? job.n_blocks : job.tiles), .key_blocks_i(job.n_blocks),
      .dim_blocks_i(job.keys ? job.k_blocks : job.n_blocks), .batch_i(cmd_word_i[LINEAR_BATCH_WORD][11:0]),
      .heads_i(job.heads),
      .idle_o(fetch_idle), .req_valid_o, .req_ready_i, .req_unit_o, .req_units_o);

  assign asked  = req_valid_o && req_ready_i;
  assign mine_o = owed_q[runs_q] != 0;
  assign drop_o = dropping_q && !mine_o;

  always_ff @(posedge clk_i) begin
    for (int i = 0; i < int'(NUMBERS); i++)
      owed_q[i] <= owed_q[i] + 16'(asked && 32'(asks_q) == i) - 16'(last_i && mine_o && 32'(runs_q) == i);
    all_owed_q <= all_owed_q + 16'(asked) - 16'(last_i);
    if (begin_fetch) begin
      asks_q              <= asks_q + NUMBER'(1);
      owed_q[asks_q + NUMBER'(1)] <= '0;
    end
    if (start_o) runs_q <= runs_q + NUMBER'(1);
    if (cmd_drop_i) asks_q <= runs_q;
    dropping_q <= cmd_drop_i || (dropping_q && all_owed_q != 0);
    if (rst_i) begin
      owed_q     <= '{default: '0};
      all_owed_q <= '0;
      asks_q     <= '0;
      runs_q     <= '0;
      dropping_q <= 1'b0;
    end
  end

endmodule
