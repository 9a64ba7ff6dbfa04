// Runs the program: reads commands (command_reader), executes those of the control flow, checks those of the engines
// (operand_check) and puts them into the engines' queues together with their signals and waits.
//
// `start_i` begins at word 0. `finished_o` marks the end: all engines are idle then, and `error_o`, `error_pc_o` say
// how it ended. An error of the front end waits until the engines have done everything before it, one of an engine
// stops what has not begun; of several the first in the program's run is reported. `abort_i` ends a run too.
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
    input  logic                  abort_i,
    input  logic [31:0]           program_i,        // in units, steady while it runs
    input  logic [31:0]           program_words_i,
    input  logic [7:0][31:0]      arg_i,            // s1 .. s8 at the start
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

    // read clients: 0 the program, 1 SCALAR load
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

  typedef enum logic [3:0] {OFF, READ, READING, EXECUTE, CHECK, PUSH, DRAIN, ALU, LOAD, LOADING, STOPPING} state_e;
  typedef enum logic [2:0] {THEN_NEXT, THEN_PUSH, THEN_END, THEN_FAIL} then_e;
  state_e state_q;
  then_e  then_q;

  // -- Commands -----------------------------------------------------------------------------------------------------

  logic [33:0] pc_q, next;
  logic        jump, read_done, counts, skip, word_valid, word_ready, word_error, in_memory, halt;
  logic [31:0] fetched;
  logic [31:0] words [MAX_PAYLOAD_WORDS];
  logic [7:0]  opcode;
  logic [4:0]  scalar_index;
  error_e      read_error;
  // Its encoding is the reader's.
  // verilator lint_off UNUSEDSIGNAL
  command_t    command;
  // verilator lint_on UNUSEDSIGNAL
  logic [31:0] scalars_q [SCALARS];

  fetch #(.UNITS(UNITS)) u_fetch (
      .clk_i, .rst_i, .program_i, .words_i(program_words_i), .jump_i(jump), .pc_i(pc_q),
      .valid_o(word_valid), .ready_i(word_ready), .word_o(fetched), .error_o(word_error),
      .rd_req_valid_o(rd_req_valid_o[0]), .rd_req_ready_i(rd_req_ready_i[0]), .rd_req_addr_o(rd_req_addr_o[0]),
      .rd_req_units_o(rd_req_units_o[0]), .rd_valid_i(rd_valid_i[0]), .rd_ready_o(rd_ready_o[0]),
      .rd_data_i(rd_data_i[0]), .rd_last_i(rd_last_i[0]), .rd_error_i(rd_error_i[0]));

  range_check #(.SPACES(SPACES), .BASE(BASE), .CAPACITY(CAPACITY)) u_program (
      .addr_i({28'd0, program_i, 4'd0}), .bytes_i({30'd0, program_words_i, 2'd0}), .ok_o(in_memory));

  command_reader #(.HEADER_WORDS(HEADER_WORDS), .OPCODES(OPCODES), .WEIGHT_FORMATS(WEIGHT_FORMATS),
                   .SCALARS(SCALARS)) u_reader (
      .clk_i, .rst_i, .start_i(state_q == READ && !halt), .pc_i(pc_q), .program_words_i, .in_memory_i(in_memory),
      .word_valid_i(word_valid), .word_ready_o(word_ready), .word_i(fetched), .word_error_i(word_error),
      .scalar_o(scalar_index), .scalar_value_i(scalars_q[scalar_index]),
      .done_o(read_done), .counts_o(counts), .error_o(read_error), .skip_o(skip), .opcode_o(opcode), .next_o(next),
      .words_o(words));

  assign command   = command_of(opcode);
  assign counted_o = read_done && state_q == READING && counts;

  // A jump is told to the fetch in the READ state that follows it.
  logic jumped_q;
  assign jump = state_q == READ && jumped_q;

  // -- Checks and queues --------------------------------------------------------------------------------------------

  logic        check_done, nothing, accepted;
  error_e      check_error;
  logic [31:0] order_q;
  logic [1:0]  queue;
  logic [4:0]  sem;
  engine_e     sem_engine;
  logic [SEMAPHORES-1:0][31:0] signals_q, waits_q;  // put into queues since the start

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
    entry_o.ticket       = waits_q[sem];
    entry_o.order        = order_q;
    entry_o.pc           = pc_q[31:0];
    entry_o.opcode       = opcode;
    for (int i = 0; i < int'(MAX_PAYLOAD_WORDS); i++) entry_o.words[i] = words[i];
  end

  // -- Scalars ------------------------------------------------------------------------------------------------------

  logic [3:0]  fn;
  logic [4:0]  rd, ra;
  logic [31:0] scalar_a, scalar_b, alu_result;
  logic        alu_done, alu_error, load_in_memory;
  logic [63:0] load_addr;
  assign fn        = words[SCALAR_FN_WORD][SCALAR_FN_LSB+:SCALAR_FN_BITS];
  assign rd        = words[SCALAR_RD_WORD][SCALAR_RD_LSB+:SCALAR_RD_BITS];
  assign ra        = words[SCALAR_RA_WORD][SCALAR_RA_LSB+:SCALAR_RA_BITS];
  assign scalar_a  = scalars_q[ra];
  assign scalar_b  = words[SCALAR_B_WORD];
  assign load_addr = {28'd0, scalar_a, 4'd0} + {30'd0, scalar_b, 2'd0};

  scalar_alu u_alu (.clk_i, .rst_i, .start_i(state_q == EXECUTE && opcode == OP_SCALAR), .fn_i(fn), .a_i(scalar_a),
                    .b_i(scalar_b), .done_o(alu_done), .error_o(alu_error), .result_o(alu_result));

  range_check #(.SPACES(SPACES), .BASE(BASE), .CAPACITY(CAPACITY)) u_load (
      .addr_i(load_addr), .bytes_i(64'd4), .ok_o(load_in_memory));

  assign rd_req_valid_o[1] = state_q == LOAD;
  assign rd_req_addr_o[1]  = {load_addr[mem_pkg::ADDRESS_WIDTH-1:4], 4'd0};
  assign rd_req_units_o[1] = 24'd1;
  assign rd_ready_o[1]     = state_q == LOADING;

  // Only the first unit of an answer was asked for.
  logic unused_answer;
  assign unused_answer = ^{rd_data_i[1][WIDTH-1:0], rd_last_i[1]};

  // -- Control flow -------------------------------------------------------------------------------------------------

  localparam int unsigned LOOP_WIDTH = $clog2(LOOP_DEPTH + 1);
  localparam int unsigned CALL_WIDTH = $clog2(CALL_DEPTH + 1);
  typedef struct packed {
    logic [33:0] body;
    logic [4:0]  rd;
    logic [31:0] count;
    logic [31:0] index;
  } loop_t;

  loop_t                 loops_q [LOOP_DEPTH];
  logic [33:0]           calls_q [CALL_DEPTH];
  logic [LOOP_WIDTH-1:0] loop_count_q;
  logic [CALL_WIDTH-1:0] call_count_q;
  loop_t                 innermost;
  logic [31:0]           loop_trips, again;
  assign innermost  = loops_q[mem_pkg::index_width(LOOP_DEPTH)'(loop_count_q - LOOP_WIDTH'(1))];
  assign again      = innermost.index + 32'd1;
  assign loop_trips = words[LOOP_COUNT_WORD];

  assign busy_o = state_q != OFF;
  assign halt   = failed_i || abort_i;
  assign stop_o = state_q == STOPPING;

  // What a command of the front end does when all is well; an error sends it elsewhere below.
  error_e flow_error;
  always_comb begin
    flow_error = ERROR_NONE;
    case (opcode)
      OP_END: if (loop_count_q != 0 || call_count_q != 0) flow_error = ERROR_STACK;
      OP_WAIT: if (signals_q[sem] == waits_q[sem]) flow_error = ERROR_DEADLOCK;
      OP_LOOP: if (!skip && $signed(loop_trips) > 0 && loop_count_q == LOOP_WIDTH'(LOOP_DEPTH)) flow_error = ERROR_STACK;
      OP_ENDLOOP: if (loop_count_q == 0) flow_error = ERROR_STACK;
      OP_CALL: if (call_count_q == CALL_WIDTH'(CALL_DEPTH)) flow_error = ERROR_STACK;
      OP_RET: if (call_count_q == 0) flow_error = ERROR_STACK;
      OP_SCALAR: if (fn == SCALAR_FN_LOAD && !load_in_memory) flow_error = ERROR_BAD_ADDRESS;
      default: ;
    endcase
  end

  task automatic set_scalar(input logic [4:0] index, input logic [31:0] value);
    if (index != 0) scalars_q[index] <= value;
  endtask

  task automatic go_to(input logic [33:0] pc);
    pc_q     <= pc;
    jumped_q <= 1'b1;
  endtask

  task automatic fail(input error_e code);
    error_o <= code;
    then_q  <= THEN_FAIL;
    state_q <= DRAIN;
  endtask

  task automatic execute_flow();
    pc_q    <= next;
    state_q <= READ;
    case (opcode)
      OP_END, OP_FENCE: begin
        pc_q    <= (opcode == OP_END) ? pc_q : next;
        then_q  <= (opcode == OP_END) ? THEN_END : THEN_NEXT;
        state_q <= DRAIN;
      end
      OP_SIGNAL, OP_WAIT: begin
        pc_q    <= pc_q;
        state_q <= PUSH;
      end
      OP_SCALAR: begin
        pc_q    <= pc_q;
        state_q <= (fn == SCALAR_FN_LOAD) ? LOAD : ALU;
      end
      OP_LOOP:
        if (skip || $signed(loop_trips) <= 0) begin
          go_to(next + 34'(words[LOOP_BODY_WORD]));
        end else begin
          loops_q[mem_pkg::index_width(LOOP_DEPTH)'(loop_count_q)] <=
              '{next, words[LOOP_RD_WORD][LOOP_RD_LSB+:LOOP_RD_BITS], loop_trips, 32'd0};
          loop_count_q <= loop_count_q + LOOP_WIDTH'(1);
          set_scalar(words[LOOP_RD_WORD][LOOP_RD_LSB+:LOOP_RD_BITS], '0);
        end
      OP_ENDLOOP:
        if (again < innermost.count) begin
          loops_q[mem_pkg::index_width(LOOP_DEPTH)'(loop_count_q - LOOP_WIDTH'(1))].index <= again;
          set_scalar(innermost.rd, again);
          go_to(innermost.body);
        end else begin
          loop_count_q <= loop_count_q - LOOP_WIDTH'(1);
        end
      OP_CALL: begin
        calls_q[mem_pkg::index_width(CALL_DEPTH)'(call_count_q)] <= next;
        call_count_q <= call_count_q + CALL_WIDTH'(1);
        go_to(34'(words[CALL_TARGET_WORD]));
      end
      OP_RET: begin
        call_count_q <= call_count_q - CALL_WIDTH'(1);
        go_to(calls_q[mem_pkg::index_width(CALL_DEPTH)'(call_count_q - CALL_WIDTH'(1))]);
      end
      default: ;
    endcase
  endtask

  task automatic begin_run();
    state_q      <= READ;
    go_to('0);
    order_q      <= '0;
    loop_count_q <= '0;
    call_count_q <= '0;
    signals_q    <= '0;
    waits_q      <= '0;
    error_o      <= ERROR_NONE;
    error_pc_o   <= '0;
    for (int i = 0; i < int'(SCALARS); i++) scalars_q[i] <= (i >= 1 && i <= 8) ? arg_i[3'(i-1)] : '0;
  endtask

  always_ff @(posedge clk_i) begin
    finished_o <= 1'b0;
    case (state_q)
      OFF: if (start_i) begin_run();
      READ: begin
        jumped_q <= 1'b0;
        state_q  <= halt ? STOPPING : READING;
      end
      READING:
        if (halt) state_q <= STOPPING;
        else if (read_done) begin
          order_q <= order_q + 32'd1;
          if (read_error != ERROR_NONE) begin
            fail(read_error);
          end else if (skip && opcode != OP_LOOP) begin
            pc_q    <= next;
            state_q <= READ;
          end else begin
            state_q <= EXECUTE;
          end
        end
      EXECUTE:
        if (command.on_engine) state_q <= CHECK;
        else if (flow_error != ERROR_NONE) fail(flow_error);
        else execute_flow();
      CHECK: if (check_done) begin
        if (check_error != ERROR_NONE) begin
          fail(check_error);
        end else if (nothing) begin
          pc_q    <= next;
          state_q <= READ;
        end else begin
          // A table is loaded while nothing else happens.
          then_q  <= THEN_PUSH;
          state_q <= (opcode == OP_LOAD_TABLE) ? DRAIN : PUSH;
        end
      end
      PUSH:
        if (halt) state_q <= STOPPING;
        else if (accepted) begin
          if (opcode == OP_SIGNAL) signals_q[sem] <= signals_q[sem] + 32'd1;
          if (opcode == OP_WAIT) waits_q[sem] <= waits_q[sem] + 32'd1;
          pc_q    <= next;
          then_q  <= THEN_NEXT;
          state_q <= (opcode == OP_LOAD_TABLE) ? DRAIN : READ;
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
      ALU: if (alu_done) begin
        pc_q    <= next;
        state_q <= READ;
        if (alu_error) begin
          pc_q <= pc_q;
          fail(ERROR_SCALAR);
        end else begin
          set_scalar(rd, alu_result);
        end
      end
      LOAD: if (rd_req_ready_i[1]) state_q <= LOADING;
      LOADING: if (rd_valid_i[1]) begin
        pc_q    <= next;
        state_q <= READ;
        if (rd_error_i[1]) begin
          pc_q <= pc_q;
          fail(ERROR_BUS);
        end else begin
          set_scalar(rd, rd_data_i[1][32*load_addr[3:2]+:32]);
        end
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
