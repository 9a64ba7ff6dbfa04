// The queue of one engine: commands, one at a time, and between them signals and waits. `stop_i` lets the command
// that runs come to its end and drops the others; after an error the queue stops by itself until the reset.
module engine_queue #(
    parameter int unsigned DEPTH = 4
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

    output logic                  cmd_valid_o,
    input  logic                  cmd_ready_i,
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

  entry_t entry;
  logic   valid, pop, stop, running_q;

  assign stop = stop_i || failed_o;

  fifo #(.WIDTH($bits(entry_t)), .DEPTH(DEPTH)) u_entries (
      .clk_i, .rst_i, .valid_i, .ready_o, .data_i(entry_i), .valid_o(valid), .ready_i(pop), .data_o(entry));

  assign cmd_valid_o  = valid && !stop && !running_q && entry.kind == ENTRY_COMMAND;
  assign cmd_opcode_o = entry.opcode;
  for (genvar i = 0; i < int'(dlavm_isa_pkg::MAX_PAYLOAD_WORDS); i++) begin : g_word
    assign cmd_word_o[i] = entry.words[i];
  end

  assign signal_o = valid && !stop && entry.kind == ENTRY_SIGNAL;
  assign sem_o    = entry.sem;
  assign ticket_o = entry.ticket;
  assign idle_o   = !valid && !running_q;
  assign running_o = running_q;

  always_comb begin
    if (running_q) pop = done_i || error_i;
    else if (stop) pop = valid;
    else pop = signal_o || (entry.kind == ENTRY_WAIT && pass_i);
  end

  always_ff @(posedge clk_i) begin
    if (error_i && running_q && !failed_o) begin
      failed_code_o  <= dlavm_isa_pkg::error_e'(error_code_i);
      failed_order_o <= entry.order;
      failed_pc_o    <= entry.pc;
    end
    if (rst_i) begin
      running_q <= 1'b0;
      failed_o  <= 1'b0;
    end else begin
      if (cmd_valid_o && cmd_ready_i) running_q <= 1'b1;
      else if (done_i || error_i) running_q <= 1'b0;
      if (error_i && running_q) failed_o <= 1'b1;
    end
  end

endmodule
