// The queue of one engine: commands, one at a time, and between them signals and waits. `stop_i` lets the command
// that runs come to its end and drops the others; after an error the queue stops by itself until the reset.
//
// With AHEAD the engine is shown its next commands (`cmd_valid_o`) while signals, waits and commands before them are
// still to come, so that it may check them and fetch their weights. Waits of `load` are not passed: they guard what is
// fetched. A command is shown until the engine says that it looks at it no more (`cmd_ready_i`). `cmd_turn_o` says that
// everything before the oldest that has not begun is over; it begins with `cmd_begin_i`, none does after `cmd_drop_o`.
// Without AHEAD a command is shown when its turn has come, begins with `cmd_ready_i` and is shown until it is done.
module engine_queue #(
    parameter int unsigned DEPTH = 8,  // a power of two
    parameter bit AHEAD = 1'b0
) (
    input  logic                  clk_i,
    input  logic                  rst_i,
    input  logic                  stop_i,
    input  logic                  valid_i,
    output logic                  ready_o,
    input  core_pkg::entry_t      entry_i,
    output logic                  idle_o,      // nothing waits, nothing runs
    output logic                  running_o,   // a command

    output logic                  signal_o,
    output logic [4:0]            sem_o,
    output logic [31:0]           ticket_o,
    input  logic                  pass_i,
    output logic [4:0]            ahead_sem_o,
    output logic [31:0]           ahead_ticket_o,
    input  logic                  ahead_pass_i,

    output logic                  cmd_valid_o,
    input  logic                  cmd_ready_i,
    output logic                  cmd_turn_o,
    input  logic                  cmd_begin_i,
    output logic                  cmd_drop_o,
    output logic [7:0]            cmd_opcode_o,
    output logic [31:0]           cmd_word_o [dlavm_isa_pkg::MAX_PAYLOAD_WORDS],
    input  logic                  done_i,
    input  logic                  error_i,
    input  logic [3:0]            error_code_i,

    output logic                  failed_o,    // what its command reported; stays until the reset
    output dlavm_isa_pkg::error_e failed_code_o,
    output logic [31:0]           failed_order_o,
    output logic [31:0]           failed_pc_o
);

  import core_pkg::*;

  localparam int unsigned BITS = $clog2(DEPTH);

  // The oldest entry, and the one up to which the engine has been shown what there is.
  entry_t        memory [DEPTH];
  // Of the oldest entry no words are needed, of the other no place in the run.
  // verilator lint_off UNUSEDSIGNAL
  entry_t        entry, shown;
  // verilator lint_on UNUSEDSIGNAL
  logic [BITS:0] in_q, out_q, shown_q;  // one bit more than the place: full and empty differ
  logic          valid, pop, stop, running_q, begins, pass_on, turn;

  assign valid   = in_q != out_q;
  assign ready_o = in_q != {~out_q[BITS], out_q[BITS-1:0]};
  assign entry   = memory[out_q[BITS-1:0]];
  assign stop    = stop_i || failed_o;

  assign turn       = valid && !stop && !running_q && entry.kind == ENTRY_COMMAND;
  assign cmd_turn_o = turn;
  assign cmd_drop_o = stop || rst_i;

  if (AHEAD) begin : g_ahead
    assign shown       = memory[shown_q[BITS-1:0]];
    assign cmd_valid_o = in_q != shown_q && !stop && shown.kind == ENTRY_COMMAND;
    assign begins      = cmd_begin_i;
    always_comb begin
      case (shown.kind)
        ENTRY_COMMAND: pass_on = cmd_ready_i;
        ENTRY_WAIT: pass_on = !shown.fetch || ahead_pass_i;
        default: pass_on = 1'b1;
      endcase
      if (in_q == shown_q) pass_on = 1'b0;
    end
  end else begin : g_in_turn
    assign shown       = entry;
    assign cmd_valid_o = turn;
    assign begins      = turn && cmd_ready_i;
    assign pass_on     = 1'b0;
    logic unused_ahead;
    assign unused_ahead = ahead_pass_i ^ cmd_begin_i;
  end

  assign ahead_sem_o    = shown.sem;
  assign ahead_ticket_o = shown.ticket;
  assign cmd_opcode_o   = shown.opcode;
  for (genvar i = 0; i < int'(dlavm_isa_pkg::MAX_PAYLOAD_WORDS); i++) begin : g_word
    assign cmd_word_o[i] = shown.words[i];
  end

  assign signal_o = valid && !stop && entry.kind == ENTRY_SIGNAL;
  assign sem_o    = entry.sem;
  assign ticket_o = entry.ticket;
  assign idle_o   = !valid && !running_q;
  assign running_o = running_q;

  always_comb begin
    if (running_q) pop = done_i || error_i;
    else if (stop) pop = valid;
    else pop = valid && (entry.kind == ENTRY_SIGNAL || (entry.kind == ENTRY_WAIT && pass_i));
  end

  always_ff @(posedge clk_i) begin
    if (valid_i && ready_o) memory[in_q[BITS-1:0]] <= entry_i;
    if (error_i && running_q && !failed_o) begin
      failed_code_o  <= dlavm_isa_pkg::error_e'(error_code_i);
      failed_order_o <= entry.order;
      failed_pc_o    <= entry.pc;
    end
    if (rst_i) begin
      in_q      <= '0;
      out_q     <= '0;
      shown_q   <= '0;
      running_q <= 1'b0;
      failed_o  <= 1'b0;
    end else begin
      in_q    <= in_q + (BITS + 1)'(valid_i && ready_o);
      out_q   <= out_q + (BITS + 1)'(pop);
      shown_q <= shown_q + (BITS + 1)'(pass_on || (pop && shown_q == out_q));
      if (begins) running_q <= 1'b1;
      else if (done_i || error_i) running_q <= 1'b0;
      if (error_i && running_q) failed_o <= 1'b1;
    end
  end

endmodule
