// The LINEAR that comes next: its checks, and the requests of its weights while the one before it still runs.
//
// A command is looked at as soon as the queue shows it (`cmd_valid_i`) and every request of the one before was made.
// `start_o` begins it when its turn has come and the engine is free; an error of its fields, or that there is nothing to
// do, is told then too (`over_o`). `job_o` is steady from a cycle before. A command that is no longer shown before it began is
// dropped, and what was asked for is swallowed.
//
// Beats come in the order of requests; `mine_o` says that the next one belongs to the command that runs.
module linear_prepare #(
    parameter int unsigned ROW_UNITS = 2,       // 16 bytes each, of a beat row of the weights
    parameter int unsigned TILE = 16,           // rows
    parameter int unsigned ACTIVATION_ELEMENTS = 8192,
    parameter int unsigned ACCUMULATORS = 4096,
    parameter int unsigned ROWS_MOST = ACTIVATION_ELEMENTS / 32,
    parameter int unsigned SETS = 1,            // blocks of values in a row tile,
    parameter int unsigned MOST_HEADS = 0       // and heads, log2
) (
    input  logic                  clk_i,
    input  logic                  rst_i,
    input  logic                  cmd_valid_i,
    input  logic                  cmd_turn_i,
    output logic                  cmd_ready_o,
    input  logic [7:0]            cmd_opcode_i,
    input  logic [31:0]           cmd_word_i [dlavm_isa_pkg::LINEAR_WORDS],
    input  logic [23:0]           acc_rows_i,    // shape of the accumulators that are held when it begins
    input  logic [23:0]           acc_n_i,
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

  typedef enum logic [1:0] {EMPTY, CHECK, READY, BEGUN} state_e;
  state_e state_q;
  logic   check_done, nothing, good, begin_fetch, asked_q, fetch_idle, cancel, asked, turn;
  error_e check_error;
  logic   dropping_q;
  // Requests whose last beat was not taken: the read client holds no more than 69.
  logic [6:0] mine_q, next_q;

  for (genvar i = 0; i < int'(LINEAR_WORDS); i++) begin : g_word
    assign job_o.words[i] = cmd_word_i[i];
  end

  linear_decode #(.ROW_UNITS(ROW_UNITS), .ACTIVATION_ELEMENTS(ACTIVATION_ELEMENTS), .ACCUMULATORS(ACCUMULATORS),
                  .ROWS_MOST(ROWS_MOST), .SETS(SETS), .MOST_HEADS(MOST_HEADS)) u_decode (
      .clk_i, .rst_i(rst_i | cancel), .check_i(state_q == EMPTY && cmd_valid_i && !dropping_q), .word_i(cmd_word_i),
      .acc_rows_i, .acc_n_i, .done_o(check_done), .nothing_o(nothing), .error_o(check_error),
      .format_o(job_o.format), .keys_o(job_o.keys), .values_o(job_o.values), .bytes_o(job_o.bytes),
      .rows_o(job_o.rows), .k_blocks_o(job_o.k_blocks), .n_blocks_o(job_o.n_blocks), .k_tail_o(job_o.k_tail),
      .n_tail_o(job_o.n_tail), .tiles_o(job_o.tiles), .tile_units_o(job_o.tile_units),
      .pieces_o(job_o.pieces), .places_o(job_o.places), .heads_o(job_o.heads),
      .ordered_o(job_o.ordered));

  assign error_o     = (cmd_opcode_i == OP_LINEAR) ? check_error : ERROR_ILLEGAL_OPCODE;
  assign good        = (error_o == ERROR_NONE) && !nothing;
  assign cancel      = (state_q == CHECK || state_q == READY) && !cmd_valid_i;
  assign turn        = (state_q == READY) && cmd_turn_i && free_i;
  assign start_o     = turn && good;
  assign over_o      = turn && !good;
  assign fetched_o   = (state_q != BEGUN) || fetch_idle;
  assign cmd_ready_o = over_o || (state_q == BEGUN && fetch_idle);
  assign begin_fetch = (state_q == READY) && cmd_valid_i && good && !asked_q;

  always_ff @(posedge clk_i) begin
    asked_q <= (state_q == READY);
    case (state_q)
      EMPTY: if (cmd_valid_i && !dropping_q) state_q <= CHECK;
      CHECK: if (check_done) state_q <= READY;
      READY: if (turn) state_q <= good ? BEGUN : EMPTY;
      BEGUN: if (fetch_idle) state_q <= EMPTY;
    endcase
    if (rst_i || cancel) state_q <= EMPTY;
  end

  // Keys too come block of tokens after block of tokens then.
  logic in_memory_order;
  assign in_memory_order = job_o.keys && job_o.ordered;

  // -- Weights ------------------------------------------------------------------------------------------------------

  weight_fetch #(.TILE(TILE)) u_fetch (
      .clk_i, .rst_i(rst_i | cancel), .start_i(begin_fetch), .keys_i(job_o.keys && !in_memory_order),
      .values_i(job_o.values || in_memory_order), .together_i(job_o.ordered && job_o.values),
      .bytes_i(job_o.bytes), .wgt_i(cmd_word_i[LINEAR_WGT_WORD]), .wgt_tile_i(cmd_word_i[LINEAR_WGT_TILE_WORD]),
      .wgt_b_i(cmd_word_i[LINEAR_WGT_B_WORD]), .tile_units_i(job_o.tile_units),
      .tiles_i(job_o.values ? job_o.k_blocks : in_memory_order ? job_o.n_blocks : job_o.tiles), .key_blocks_i(job_o.n_blocks),
      .dim_blocks_i(job_o.keys ? job_o.k_blocks : job_o.n_blocks), .batch_i(cmd_word_i[LINEAR_BATCH_WORD][11:0]),
      .heads_i(job_o.heads),
      .idle_o(fetch_idle), .req_valid_o, .req_ready_i, .req_unit_o, .req_units_o);

  assign asked  = req_valid_o && req_ready_i;
  assign mine_o = mine_q != 0;
  assign drop_o = dropping_q && !mine_o;

  always_ff @(posedge clk_i) begin
    mine_q <= mine_q + 7'(asked && state_q == BEGUN) - 7'(last_i && mine_o);
    next_q <= next_q + 7'(asked && state_q != BEGUN) - 7'(last_i && !mine_o);
    if (start_o) begin
      mine_q <= next_q + 7'(asked);
      next_q <= '0;
    end
    dropping_q <= cancel || (dropping_q && next_q != 0);
    if (rst_i) begin
      mine_q     <= '0;
      next_q     <= '0;
      dropping_q <= 1'b0;
    end
  end

endmodule
