// Runs the program: takes commands, executes those of the control flow, checks those of the engines (operand_check) and
// puts them into the engines' queues together with their signals and waits.
//
// Where commands come from follows from the target. With header words they are a stream in memory: `start_i` begins
// at its word 0. Without, the host writes one at a time into registers: `launch_i` runs it, and a start has nothing to
// run. Without scalars there is no control flow but END and FENCE. Without semaphores nothing orders the engines, so
// that a command waits until all before it have ended.
//
// `finished_o` marks the end: all engines are idle then, and `error_o`, `error_pc_o` say how it ended. An error of the
// front end waits until the engines have done everything before it, one of an engine stops what has not begun; of
// several the first in the program's run is reported. `abort_i` ends a run too.
module front_end #(
    parameter int unsigned UNITS = 2,
    parameter int unsigned WEIGHT_ROW_UNITS = UNITS,  // of a beat row of weights
    parameter int unsigned SPACES = 1,
    parameter logic [SPACES-1:0][mem_pkg::ADDRESS_WIDTH-1:0] BASE = '0,
    parameter logic [SPACES-1:0][mem_pkg::ADDRESS_WIDTH-1:0] CAPACITY = {SPACES{40'h1000}},
    parameter int unsigned HEADER_WORDS = 2,
    parameter logic [255:0] OPCODES = '1,
    parameter logic [31:0] WEIGHT_FORMATS = '1,
    parameter int unsigned SCALARS = 32,
    parameter int unsigned SEMAPHORES = 32,
    parameter int unsigned LOOP_DEPTH = 8,
    parameter int unsigned CALL_DEPTH = 8,
    localparam int unsigned WIDTH = UNITS * mem_pkg::UNIT_BITS,
    localparam int unsigned QUEUES = core_pkg::QUEUES
) (
    input  logic                  clk_i,
    input  logic                  rst_i,
    input  logic                  start_i,
    input  logic                  launch_i,
    input  logic                  abort_i,
    // steady while it runs
    input  logic [31:0]           program_i,        // in units
    input  logic [31:0]           program_words_i,
    input  logic [dlavm_isa_pkg::REG_ARG_COUNT-1:0][31:0] arg_i,  // s1, s2, .. at the start
    input  logic [31:0]           opcode_i,         // what a launch runs
    input  logic [dlavm_isa_pkg::REG_OP_COUNT-1:0][31:0] op_i,
    output logic                  busy_o,
    output logic                  finished_o,
    output dlavm_isa_pkg::error_e error_o,          // until the next start
    output logic [31:0]           error_pc_o,
    output logic                  counted_o,        // one command more
    output logic [63:0]           read_o,           // bytes of a command, with `bytes_valid_o`
    output logic [63:0]           written_o,
    output logic                  bytes_valid_o,

    // queues
    output logic                  stop_o,
    output logic [QUEUES-1:0]     entry_valid_o,
    input  logic [QUEUES-1:0]     entry_ready_i,
    output core_pkg::entry_t      entry_o,
    input  logic [QUEUES-1:0]     idle_i,
    input  logic                  failed_i,         // the first error of the engines
    input  logic [3:0]            failed_code_i,
    input  logic [31:0]           failed_pc_i,

    // read clients: 0 the program, 1 SCALAR load; silent where the target has no stream, no scalars
    output logic [1:0]                              rd_req_valid_o,
    input  logic [1:0]                              rd_req_ready_i,
    output logic [1:0][mem_pkg::ADDRESS_WIDTH-1:0]  rd_req_addr_o,
    output logic [1:0][mem_pkg::COUNT_WIDTH-1:0]    rd_req_units_o,
    input  logic [1:0]                              rd_valid_i,
    output logic [1:0]                              rd_ready_o,
    input  logic [1:0][WIDTH-1:0]                   rd_data_i,
    input  logic [1:0]                              rd_last_i,
    input  logic [1:0]                              rd_error_i
);

  import dlavm_isa_pkg::*;
  import core_pkg::*;

  typedef enum logic [3:0] {OFF, READ, READING, EXECUTE, FLOW, CHECK, PUSH, DRAIN, STOPPING} state_e;
  typedef enum logic [2:0] {THEN_NEXT, THEN_PUSH, THEN_END, THEN_FAIL} then_e;
  state_e state_q;
  then_e  then_q;

  localparam bit LAUNCHED = HEADER_WORDS == 0;
  localparam bit ORDERED  = SEMAPHORES != 0;

  // -- Commands -----------------------------------------------------------------------------------------------------

  logic [33:0] pc_q, next;
  logic        jump, read_done, counts, skip, word_valid, word_ready, word_error, in_memory, halt;
  logic [31:0] word, word_count;
  logic [31:0] words [MAX_PAYLOAD_WORDS];
  logic [7:0]  opcode;
  logic [4:0]  scalar_index;
  logic [31:0] scalar_value;
  error_e      read_error;
  // Its encoding is the reader's.
  // verilator lint_off UNUSEDSIGNAL
  command_t    command;
  // verilator lint_on UNUSEDSIGNAL

  if (LAUNCHED) begin : g_launched
    register_words u_words (.clk_i, .first_i(jump), .opcode_i, .op_i, .ready_i(word_ready), .word_o(word));
    assign word_valid        = 1'b1;
    assign word_error        = 1'b0;
    assign word_count        = '1;
    assign in_memory         = 1'b1;
    assign rd_req_valid_o[0] = 1'b0;
    assign rd_req_addr_o[0]  = '0;
    assign rd_req_units_o[0] = '0;
    assign rd_ready_o[0]     = 1'b0;
    logic unused_stream;
    assign unused_stream = ^{program_i, program_words_i, rd_req_ready_i[0], rd_valid_i[0], rd_data_i[0], rd_last_i[0],
                             rd_error_i[0]};
  end else begin : g_stream
    fetch #(.UNITS(UNITS)) u_fetch (
        .clk_i, .rst_i, .program_i, .words_i(program_words_i), .jump_i(jump), .pc_i(pc_q),
        .valid_o(word_valid), .ready_i(word_ready), .word_o(word), .error_o(word_error),
        .rd_req_valid_o(rd_req_valid_o[0]), .rd_req_ready_i(rd_req_ready_i[0]), .rd_req_addr_o(rd_req_addr_o[0]),
        .rd_req_units_o(rd_req_units_o[0]), .rd_valid_i(rd_valid_i[0]), .rd_ready_o(rd_ready_o[0]),
        .rd_data_i(rd_data_i[0]), .rd_last_i(rd_last_i[0]), .rd_error_i(rd_error_i[0]));

    range_check #(.SPACES(SPACES), .BASE(BASE), .CAPACITY(CAPACITY)) u_program (
        .addr_i({28'd0, program_i, 4'd0}), .bytes_i({30'd0, program_words_i, 2'd0}), .ok_o(in_memory));

    assign word_count = program_words_i;
    logic unused_launch;
    assign unused_launch = ^{opcode_i, op_i};
  end

  command_reader #(.HEADER_WORDS(HEADER_WORDS), .OPCODES(OPCODES), .WEIGHT_FORMATS(WEIGHT_FORMATS),
                   .SCALARS(SCALARS)) u_reader (
      .clk_i, .rst_i, .start_i(state_q == READ && !halt), .pc_i(pc_q), .program_words_i(word_count),
      .in_memory_i(in_memory), .word_valid_i(word_valid), .word_ready_o(word_ready), .word_i(word),
      .word_error_i(word_error), .scalar_o(scalar_index), .scalar_value_i(scalar_value),
      .done_o(read_done), .counts_o(counts), .error_o(read_error), .skip_o(skip), .opcode_o(opcode), .next_o(next),
      .words_o(words));

  assign command   = command_of(opcode);
  assign counted_o = read_done && state_q == READING && counts;

  // A jump is told to what brings the words in the READ state that follows it.
  logic jumped_q;
  assign jump = state_q == READ && jumped_q;

  // -- Checks and queues --------------------------------------------------------------------------------------------

  logic        check_done, nothing, accepted;
  error_e      check_error;
  logic [31:0] order_q;
  logic [1:0]  queue;
  logic [4:0]  sem;
  engine_e     sem_engine;
  logic [31:0] ticket;
  logic        absent, deadlock;  // of the semaphore

  operand_check #(.ROW_UNITS(WEIGHT_ROW_UNITS), .SPACES(SPACES), .BASE(BASE), .CAPACITY(CAPACITY)) u_check (
      .clk_i, .rst_i, .start_i(state_q == EXECUTE && command.on_engine && !skip), .opcode_i(opcode), .word_i(words),
      .done_o(check_done), .nothing_o(nothing), .error_o(check_error), .read_o, .written_o);
  assign bytes_valid_o = state_q == CHECK && check_done && check_error == ERROR_NONE;

  assign sem        = words[SIGNAL_SEM_WORD][SIGNAL_SEM_LSB+:SIGNAL_SEM_BITS];
  assign sem_engine = engine_e'(words[SIGNAL_ENGINE_WORD][SIGNAL_ENGINE_LSB+:SIGNAL_ENGINE_BITS]);
  assign queue      = command.on_engine ? queue_of(command.engine) : queue_of(sem_engine);
  assign accepted   = state_q == PUSH && entry_ready_i[queue] && !halt;

  always_comb begin
    entry_valid_o        = '0;
    entry_valid_o[queue] = state_q == PUSH && !halt;
    entry_o.kind         = command.on_engine ? ENTRY_COMMAND : (opcode == OP_WAIT) ? ENTRY_WAIT : ENTRY_SIGNAL;
    entry_o.sem          = sem;
    entry_o.ticket       = ticket;
    entry_o.fetch        = sem_engine == ENGINE_LOAD;
    entry_o.order        = order_q;
    entry_o.pc           = pc_q[31:0];
    entry_o.opcode       = opcode;
    for (int i = 0; i < int'(MAX_PAYLOAD_WORDS); i++) entry_o.words[i] = words[i];
  end

  if (ORDERED) begin : g_semaphores
    logic [SEMAPHORES-1:0][31:0] signals_q, waits_q;  // put into queues since the start
    assign absent   = 6'(sem) >= 6'(SEMAPHORES);
    assign ticket   = waits_q[sem];
    assign deadlock = signals_q[sem] == waits_q[sem];
    always_ff @(posedge clk_i) begin
      if (accepted && opcode == OP_SIGNAL) signals_q[sem] <= signals_q[sem] + 32'd1;
      if (accepted && opcode == OP_WAIT) waits_q[sem] <= waits_q[sem] + 32'd1;
      if (start_i) begin
        signals_q <= '0;
        waits_q   <= '0;
      end
    end
  end else begin : g_no_semaphores
    assign absent   = 1'b0;
    assign ticket   = '0;
    assign deadlock = 1'b0;
  end

  // -- Control flow -------------------------------------------------------------------------------------------------

  logic        flow_done, flow_jump, nested;
  error_e      flow_error;
  logic [33:0] flow_target;

  if (SCALARS != 0) begin : g_flow
    logic of_flow;  // else it concerns the engines
    assign of_flow = !command.on_engine && !(opcode inside {OP_END, OP_FENCE, OP_SIGNAL, OP_WAIT});
    control_flow #(.UNITS(UNITS), .SPACES(SPACES), .BASE(BASE), .CAPACITY(CAPACITY), .SCALARS(SCALARS),
                   .LOOP_DEPTH(LOOP_DEPTH), .CALL_DEPTH(CALL_DEPTH)) u_flow (
        .clk_i, .rst_i, .start_i(state_q == OFF && start_i), .arg_i, .scalar_i(scalar_index),
        .scalar_value_o(scalar_value), .execute_i(state_q == EXECUTE && of_flow), .opcode_i(opcode), .skip_i(skip),
        .word_i(words), .next_i(next), .done_o(flow_done), .error_o(flow_error), .jump_o(flow_jump),
        .target_o(flow_target), .nested_o(nested),
        .rd_req_valid_o(rd_req_valid_o[1]), .rd_req_ready_i(rd_req_ready_i[1]), .rd_req_addr_o(rd_req_addr_o[1]),
        .rd_req_units_o(rd_req_units_o[1]), .rd_valid_i(rd_valid_i[1]), .rd_ready_o(rd_ready_o[1]),
        .rd_data_i(rd_data_i[1]), .rd_last_i(rd_last_i[1]), .rd_error_i(rd_error_i[1]));
  end else begin : g_no_flow
    assign scalar_value      = '0;
    assign flow_done         = 1'b1;
    assign flow_error        = ERROR_NONE;
    assign flow_jump         = 1'b0;
    assign flow_target       = '0;
    assign nested            = 1'b0;
    assign rd_req_valid_o[1] = 1'b0;
    assign rd_req_addr_o[1]  = '0;
    assign rd_req_units_o[1] = '0;
    assign rd_ready_o[1]     = 1'b0;
    logic unused_flow;
    assign unused_flow = ^{arg_i, scalar_index, rd_req_ready_i[1], rd_valid_i[1], rd_data_i[1], rd_last_i[1],
                           rd_error_i[1]};
  end

  // -- Sequence -----------------------------------------------------------------------------------------------------

  assign busy_o = state_q != OFF;
  assign halt   = failed_i || abort_i;
  assign stop_o = state_q == STOPPING;

  task automatic begin_run();
    state_q    <= READ;
    pc_q       <= '0;
    jumped_q   <= 1'b1;
    order_q    <= '0;
    error_o    <= ERROR_NONE;
    error_pc_o <= '0;
  endtask

  task automatic drain(input then_e then_do);
    then_q  <= then_do;
    state_q <= DRAIN;
  endtask

  task automatic fail(input error_e code);
    error_o <= code;
    drain(THEN_FAIL);
  endtask

  // The command is over, or in its queue.
  task automatic go_on();
    pc_q <= next;
    if (LAUNCHED) drain(THEN_END);
    else state_q <= READ;
  endtask

  task automatic end_flow();
    if (flow_error != ERROR_NONE) begin
      fail(flow_error);
    end else begin
      pc_q     <= flow_jump ? flow_target : next;
      jumped_q <= flow_jump;
      state_q  <= READ;
    end
  endtask

  task automatic execute();
    if (command.on_engine) state_q <= CHECK;
    else if (opcode inside {OP_SIGNAL, OP_WAIT} && absent) fail(ERROR_FIELD_RANGE);
    else if (opcode == OP_WAIT && deadlock) fail(ERROR_DEADLOCK);
    else if (opcode inside {OP_SIGNAL, OP_WAIT}) state_q <= PUSH;
    else if (opcode == OP_END && nested) fail(ERROR_STACK);
    else if (opcode == OP_END) drain(THEN_END);
    else if (opcode == OP_FENCE) begin
      pc_q <= next;
      drain(THEN_NEXT);
    end
    else if (flow_done) end_flow();
    else state_q <= FLOW;
  endtask

  always_ff @(posedge clk_i) begin
    finished_o <= 1'b0;
    case (state_q)
      OFF:
        if (start_i || launch_i) begin
          begin_run();
          if (LAUNCHED && start_i) drain(THEN_END);
        end
      READ: begin
        jumped_q <= 1'b0;
        state_q  <= halt ? STOPPING : READING;
      end
      READING:
        if (halt) state_q <= STOPPING;
        else if (read_done) begin
          order_q <= order_q + 32'd1;
          if (read_error != ERROR_NONE) fail(read_error);
          else if (skip && opcode != OP_LOOP) go_on();
          else state_q <= EXECUTE;
        end
      EXECUTE: execute();
      FLOW: if (flow_done) end_flow();
      CHECK: if (check_done) begin
        if (check_error != ERROR_NONE) fail(check_error);
        else if (nothing) go_on();
        // A table is loaded while nothing else happens.
        else if (!ORDERED || opcode == OP_LOAD_TABLE) drain(THEN_PUSH);
        else state_q <= PUSH;
      end
      PUSH:
        if (halt) state_q <= STOPPING;
        else if (accepted) begin
          go_on();
          if (ORDERED && opcode == OP_LOAD_TABLE) drain(THEN_NEXT);
        end
      DRAIN:
        if (halt) state_q <= STOPPING;
        else if (idle_i == '1) begin
          case (then_q)
            THEN_NEXT: state_q <= READ;
            THEN_PUSH: state_q <= PUSH;
            default: begin
              finished_o <= 1'b1;
              if (then_q == THEN_FAIL) error_pc_o <= pc_q[31:0];
              state_q <= OFF;
            end
          endcase
        end
      default: if (idle_i == '1) begin  // STOPPING
        finished_o <= 1'b1;
        if (failed_i) begin
          error_o    <= error_e'(failed_code_i);
          error_pc_o <= failed_pc_i;
        end
        state_q <= OFF;
      end
    endcase
    if (rst_i) begin
      state_q    <= OFF;
      finished_o <= 1'b0;
      error_o    <= ERROR_NONE;
      error_pc_o <= '0;
      jumped_q   <= 1'b0;
    end
  end

endmodule
