// The accelerator: front end, queues, engines, memory fabric, registers (doc/hardware.md draws it). What a generation
// can do is in the parameters: HEADER_WORDS, SCALARS, SEMAPHORES, OPCODES, WEIGHT_FORMATS.
//
// Memory: one AXI4 master a channel, data width PORT_BYTES, one ID, INCR bursts of whole beats, in order; addresses
// count from the start of the channel. Registers: an AXI4-Lite slave of 4 KiB.
module dlavm_core #(
    parameter logic [31:0] ID = '0,             // first 32 bits of the target hash
    parameter logic [255:0] OPCODES = '1,       // those that the target has
    parameter logic [31:0] WEIGHT_FORMATS = '1,
    parameter int unsigned UNITS = 2,           // of 16 bytes in a beat of the fabric's clients
    parameter int unsigned ROW_UNITS = UNITS,   // in a row of the fabric, a beat of weights
    parameter int unsigned HALVES = 2,          // 1: a row is two beat rows of the weights' space
    parameter int unsigned PORT_BYTES = 16,     // of AXI
    parameter int unsigned SPACES = 1,
    parameter logic [SPACES-1:0][mem_pkg::ADDRESS_WIDTH-1:0] BASE = '0,
    parameter logic [SPACES-1:0][mem_pkg::ADDRESS_WIDTH-1:0] CAPACITY = {SPACES{40'h800_0000}},
    parameter logic [SPACES-1:0][7:0] SPACE_CHANNELS = {SPACES{8'd2}},
    parameter logic [SPACES-1:0][15:0] SPACE_STRIPE = {SPACES{16'(PORT_BYTES)}},  // bytes in a channel's beat of a beat row
    parameter int unsigned WEIGHT_SPACE = 0,
    parameter int unsigned CHANNELS = 2,        // of all spaces, in their order
    parameter int unsigned CHUNK = 16,          // rows of a burst
    parameter int unsigned READ_ROWS = 64,      // rows that the buffer of the weights' reader holds,
    parameter int unsigned CLIENT_ROWS = 64,    // those of the others
    parameter int unsigned LANES = 8,           // of the vector engine
    parameter int unsigned EPILOGUE_LANES = UNITS,
    parameter int unsigned SHARE = 1,           // of the matrix engine
    parameter int unsigned ACTIVATION_ELEMENTS = 8192,
    parameter int unsigned ACCUMULATORS = 4096,
    parameter int unsigned ROWS_MOST = ACTIVATION_ELEMENTS / 32,  // rows of a LINEAR
    parameter int unsigned RESULT_BLOCKS = 4,   // pairs of tokens whose results wait for the epilogue
    parameter int unsigned HEADER_WORDS = 2,    // of a command in the stream; 0: the host launches each from registers
    parameter int unsigned SCALARS = 32,        // 0: no control flow on the device
    parameter int unsigned SEMAPHORES = 32,     // 0: one command at a time
    parameter int unsigned LOOP_DEPTH = 8,
    parameter int unsigned CALL_DEPTH = 8,
    parameter int unsigned QUEUE_DEPTH = 8,     // of each engine: a LINEAR, and the next behind a signal and two waits
    localparam int unsigned PORT_BITS = 8 * PORT_BYTES
) (
    input  logic                                             clk_i,
    input  logic                                             rst_i,
    output logic                                             busy_o,  // from CONTROL.start until STATUS says done or error

    output logic [CHANNELS-1:0]                              m_ar_valid_o,
    input  logic [CHANNELS-1:0]                              m_ar_ready_i,
    output logic [CHANNELS-1:0][mem_pkg::ADDRESS_WIDTH-1:0]  m_ar_addr_o,
    output logic [CHANNELS-1:0][7:0]                         m_ar_len_o,
    input  logic [CHANNELS-1:0]                              m_r_valid_i,
    output logic [CHANNELS-1:0]                              m_r_ready_o,
    input  logic [CHANNELS-1:0][PORT_BITS-1:0]               m_r_data_i,
    input  logic [CHANNELS-1:0][1:0]                         m_r_resp_i,
    output logic [CHANNELS-1:0]                              m_aw_valid_o,
    input  logic [CHANNELS-1:0]                              m_aw_ready_i,
    output logic [CHANNELS-1:0][mem_pkg::ADDRESS_WIDTH-1:0]  m_aw_addr_o,
    output logic [CHANNELS-1:0][7:0]                         m_aw_len_o,
    output logic [CHANNELS-1:0]                              m_w_valid_o,
    input  logic [CHANNELS-1:0]                              m_w_ready_i,
    output logic [CHANNELS-1:0][PORT_BITS-1:0]               m_w_data_o,
    output logic [CHANNELS-1:0][PORT_BYTES-1:0]              m_w_strb_o,
    output logic [CHANNELS-1:0]                              m_w_last_o,
    input  logic [CHANNELS-1:0]                              m_b_valid_i,
    output logic [CHANNELS-1:0]                              m_b_ready_o,
    input  logic [CHANNELS-1:0][1:0]                         m_b_resp_i,

    input  logic                                             s_aw_valid_i,
    output logic                                             s_aw_ready_o,
    input  logic [11:0]                                      s_aw_addr_i,
    input  logic                                             s_w_valid_i,
    output logic                                             s_w_ready_o,
    input  logic [31:0]                                      s_w_data_i,
    output logic                                             s_b_valid_o,
    input  logic                                             s_b_ready_i,
    input  logic                                             s_ar_valid_i,
    output logic                                             s_ar_ready_o,
    input  logic [11:0]                                      s_ar_addr_i,
    output logic                                             s_r_valid_o,
    input  logic                                             s_r_ready_i,
    output logic [31:0]                                      s_r_data_o
);

  import dlavm_isa_pkg::*;
  import core_pkg::*;

  localparam int unsigned WIDTH = UNITS * mem_pkg::UNIT_BITS;

  // Clients of the memory fabric beside the weights' (wt): the front end's for a stream and for scalars, two of COPY and
  // GATHER, two of LINEAR (activations, the epilogue's operands), one of the vector engine.
  localparam int unsigned FRONT_READERS = 32'(HEADER_WORDS != 0) + 32'(SCALARS != 0);
  localparam int unsigned STORE_READ = FRONT_READERS, MATRIX_READ = STORE_READ + 2, VECTOR_READ = MATRIX_READ + 2;
  localparam int unsigned READERS = VECTOR_READ + 1, WRITERS = 3;

  logic [READERS-1:0]                              rd_req_valid, rd_req_ready, rd_valid, rd_ready, rd_last, rd_error;
  logic [READERS-1:0][mem_pkg::ADDRESS_WIDTH-1:0]  rd_req_addr;
  logic [READERS-1:0][mem_pkg::COUNT_WIDTH-1:0]    rd_req_units;
  logic [READERS-1:0][WIDTH-1:0]                   rd_data;
  logic                                            wt_req_valid, wt_req_ready, wt_valid, wt_ready, wt_error;
  logic [mem_pkg::ADDRESS_WIDTH-1:0]               wt_req_addr;
  logic [mem_pkg::COUNT_WIDTH-1:0]                 wt_req_units;
  logic [ROW_UNITS*mem_pkg::UNIT_BITS-1:0]         wt_data;
  logic [WRITERS-1:0]                              wr_req_valid, wr_req_ready, wr_valid, wr_ready, wr_idle, wr_error;
  logic [WRITERS-1:0][mem_pkg::ADDRESS_WIDTH-1:0]  wr_req_addr;
  logic [WRITERS-1:0][mem_pkg::COUNT_WIDTH-1:0]    wr_req_units;
  logic [WRITERS-1:0][WIDTH-1:0]                   wr_data;
  logic [WRITERS-1:0][WIDTH/8-1:0]                 wr_strb;

  // -- Registers and control --------------------------------------------------------------------------------------

  logic             start_request, reset_request, launch_request, start, reset_taken, launch, begins;
  logic             core_reset, reset, abort, busy, quiet, finished, counted, bytes_valid;
  error_e           error;
  logic [2:0]       status;
  logic [3:0]       error_code;
  logic [31:0]      program_base, program_words, error_pc, run_error_pc;
  logic [31:0]      launch_opcode;
  logic [REG_ARG_COUNT-1:0][31:0] arg;
  logic [REG_OP_COUNT-1:0][31:0]  op;
  logic [63:0]      cycles, commands, bytes_read, bytes_written, command_read, command_written;
  logic [31:0]      profiled_channel, profile_value;
  logic [QUEUES-1:0] running;

  register_file #(.ID(ID), .HEADER_WORDS(HEADER_WORDS), .SCALARS(SCALARS)) u_registers (
      .clk_i, .rst_i, .aw_valid_i(s_aw_valid_i), .aw_ready_o(s_aw_ready_o), .aw_addr_i(s_aw_addr_i),
      .w_valid_i(s_w_valid_i), .w_ready_o(s_w_ready_o), .w_data_i(s_w_data_i), .b_valid_o(s_b_valid_o),
      .b_ready_i(s_b_ready_i), .ar_valid_i(s_ar_valid_i), .ar_ready_o(s_ar_ready_o), .ar_addr_i(s_ar_addr_i),
      .r_valid_o(s_r_valid_o), .r_ready_i(s_r_ready_i), .r_data_o(s_r_data_o),
      .start_o(start_request), .reset_o(reset_request), .launch_o(launch_request), .start_taken_i(start),
      .reset_taken_i(reset_taken), .launch_taken_i(launch),
      .program_o(program_base), .program_words_o(program_words), .arg_o(arg), .opcode_o(launch_opcode), .op_o(op),
      .status_i(status), .error_i(error_code), .error_pc_i(run_error_pc), .cycles_i(cycles), .commands_i(commands),
      .bytes_read_i(bytes_read), .bytes_written_i(bytes_written), .channel_o(profiled_channel),
      .profile_i(profile_value));

  profile_counters #(.CHANNELS(CHANNELS), .PORT_BYTES(PORT_BYTES)) u_profile (
      .clk_i, .rst_i, .clear_i(start || reset_taken), .run_i(status[0]), .cycles_i(cycles), .running_i(running),
      .ar_valid_i(m_ar_valid_o), .ar_ready_i(m_ar_ready_i), .ar_len_i(m_ar_len_o), .r_valid_i(m_r_valid_i),
      .r_ready_i(m_r_ready_o), .aw_valid_i(m_aw_valid_o), .aw_ready_i(m_aw_ready_i), .w_valid_i(m_w_valid_o),
      .w_ready_i(m_w_ready_i), .b_valid_i(m_b_valid_i), .b_ready_i(m_b_ready_o), .channel_i(profiled_channel),
      .address_i(s_ar_addr_i), .value_o(profile_value));

  run_control u_control (
      .clk_i, .rst_i, .start_i(start_request), .reset_i(reset_request), .launch_i(launch_request), .start_taken_o(start),
      .launch_taken_o(launch), .reset_taken_o(reset_taken), .core_reset_o(core_reset),
      .abort_o(abort), .busy_i(busy), .quiet_i(quiet), .finished_i(finished), .error_i(error), .error_pc_i(error_pc),
      .counted_i(counted), .bytes_valid_i(bytes_valid), .read_i(command_read), .written_i(command_written),
      .status_o(status), .error_o(error_code), .error_pc_o(run_error_pc), .cycles_o(cycles), .commands_o(commands),
      .bytes_read_o(bytes_read), .bytes_written_o(bytes_written));

  assign begins = start || launch;
  assign busy_o = start_request || reset_request || launch_request || status[0];
  always_ff @(posedge clk_i) reset <= rst_i || core_reset;

  // -- Front end and queues ---------------------------------------------------------------------------------------

  logic                    stop, failed;
  logic                    ahead_pass;  // of the matrix engine: only its weights are fetched ahead
  logic [QUEUES-1:0]       entry_valid, entry_ready, idle, signal, pass, queue_failed;
  logic [QUEUES-1:0]       cmd_valid, cmd_ready, cmd_turn, cmd_begin, cmd_drop, cmd_done, cmd_error;
  logic [QUEUES-1:0][4:0]  sem, ahead_sem;
  logic [QUEUES-1:0][31:0] ticket, ahead_ticket, failed_order, failed_pc;
  logic [QUEUES-1:0][3:0]  cmd_error_code, failed_code;
  logic [QUEUES-1:0][7:0]  cmd_opcode;
  logic [31:0]             cmd_word [QUEUES][MAX_PAYLOAD_WORDS];
  entry_t                  entry;

  // The front end's read clients, of which a core has those that it needs.
  logic [1:0]                              front_req_valid, front_req_ready, front_valid, front_ready, front_last, front_error;
  logic [1:0][mem_pkg::ADDRESS_WIDTH-1:0]  front_req_addr;
  logic [1:0][mem_pkg::COUNT_WIDTH-1:0]    front_req_units;
  logic [1:0][WIDTH-1:0]                   front_data;
  logic [3:0]              first_code;
  logic [31:0]             first_order, first_pc;

  front_end #(.UNITS(UNITS), .WEIGHT_ROW_UNITS(ROW_UNITS * HALVES / 2), .SPACES(SPACES), .BASE(BASE), .CAPACITY(CAPACITY),
              .OPCODES(OPCODES), .WEIGHT_FORMATS(WEIGHT_FORMATS), .HEADER_WORDS(HEADER_WORDS), .SCALARS(SCALARS),
              .SEMAPHORES(SEMAPHORES), .LOOP_DEPTH(LOOP_DEPTH), .CALL_DEPTH(CALL_DEPTH)) u_front_end (
      .clk_i, .rst_i(reset), .start_i(start), .launch_i(launch), .abort_i(abort), .program_i(program_base),
      .program_words_i(program_words), .arg_i(arg), .opcode_i(launch_opcode), .op_i(op), .busy_o(busy),
      .finished_o(finished), .error_o(error), .error_pc_o(error_pc), .counted_o(counted),
      .read_o(command_read), .written_o(command_written), .bytes_valid_o(bytes_valid),
      .stop_o(stop), .entry_valid_o(entry_valid), .entry_ready_i(entry_ready), .entry_o(entry), .idle_i(idle),
      .failed_i(failed), .failed_code_i(first_code), .failed_pc_i(first_pc),
      .rd_req_valid_o(front_req_valid), .rd_req_ready_i(front_req_ready), .rd_req_addr_o(front_req_addr),
      .rd_req_units_o(front_req_units), .rd_valid_i(front_valid), .rd_ready_o(front_ready), .rd_data_i(front_data),
      .rd_last_i(front_last), .rd_error_i(front_error));

  for (genvar i = 0; i < 2; i++) begin : g_front_read
    if (i < FRONT_READERS) begin : g_client
      assign rd_req_valid[i]    = front_req_valid[i];
      assign rd_req_addr[i]     = front_req_addr[i];
      assign rd_req_units[i]    = front_req_units[i];
      assign rd_ready[i]        = front_ready[i];
      assign front_req_ready[i] = rd_req_ready[i];
      assign front_valid[i]     = rd_valid[i];
      assign front_data[i]      = rd_data[i];
      assign front_last[i]      = rd_last[i];
      assign front_error[i]     = rd_error[i];
    end else begin : g_none
      assign front_req_ready[i] = 1'b0;
      assign front_valid[i]     = 1'b0;
      assign front_data[i]      = '0;
      assign front_last[i]      = 1'b0;
      assign front_error[i]     = 1'b0;
      logic unused_client;
      assign unused_client = ^{front_req_valid[i], front_req_addr[i], front_req_units[i], front_ready[i]};
    end
  end

  if (SEMAPHORES != 0) begin : g_semaphores
    semaphores #(.COUNT(SEMAPHORES)) u_semaphores (
        .clk_i, .clear_i(reset || start), .signal_i(signal), .sem_i(sem), .ticket_i(ticket), .pass_o(pass),
        .ahead_sem_i(ahead_sem[MATRIX]), .ahead_ticket_i(ahead_ticket[MATRIX]), .ahead_pass_o(ahead_pass));
    logic unused_ahead;
    assign unused_ahead = ^{ahead_sem, ahead_ticket, cmd_turn, cmd_drop};
  end else begin : g_no_semaphores
    assign pass       = '0;
    assign ahead_pass = 1'b0;
    logic unused_signals;
    assign unused_signals = ^{signal, sem, ticket, ahead_sem, ahead_ticket, cmd_turn, cmd_drop};
  end

  for (genvar q = 0; q < int'(QUEUES); q++) begin : g_queue
    engine_queue #(.DEPTH(QUEUE_DEPTH), .AHEAD(q == int'(MATRIX))) u_queue (
        .clk_i, .rst_i(reset || begins), .stop_i(stop), .valid_i(entry_valid[q]), .ready_o(entry_ready[q]), .entry_i(entry),
        .idle_o(idle[q]), .running_o(running[q]), .signal_o(signal[q]), .sem_o(sem[q]), .ticket_o(ticket[q]),
        .pass_i(pass[q]), .ahead_sem_o(ahead_sem[q]), .ahead_ticket_o(ahead_ticket[q]), .ahead_pass_i(ahead_pass),
        .cmd_valid_o(cmd_valid[q]), .cmd_ready_i(cmd_ready[q]), .cmd_turn_o(cmd_turn[q]), .cmd_begin_i(cmd_begin[q]),
        .cmd_drop_o(cmd_drop[q]), .cmd_opcode_o(cmd_opcode[q]), .cmd_word_o(cmd_word[q]),
        .done_i(cmd_done[q]), .error_i(cmd_error[q]), .error_code_i(cmd_error_code[q]),
        .failed_o(queue_failed[q]), .failed_code_o(failed_code[q]), .failed_order_o(failed_order[q]),
        .failed_pc_o(failed_pc[q]));
  end

  // The first of the commands that failed, in the order of the program's run.
  always_comb begin
    failed      = |queue_failed;
    first_code  = '0;
    first_order = '1;
    first_pc    = '0;
    for (int q = 0; q < int'(QUEUES); q++) begin
      if (queue_failed[q] && failed_order[q] <= first_order) begin
        first_code  = failed_code[q];
        first_order = failed_order[q];
        first_pc    = failed_pc[q];
      end
    end
  end

  // -- Engines ----------------------------------------------------------------------------------------------------

  assign cmd_begin[VECTOR] = 1'b0;  // these begin what they take
  assign cmd_begin[STORE]  = 1'b0;

  logic                    table_write;
  logic [1:0]              table_slot, act_slot;
  logic [10:0]             table_index;
  logic [63:0]             table_pair;
  logic [EPILOGUE_LANES-1:0][10:0] act_index;
  logic [EPILOGUE_LANES-1:0][63:0] act_pair;

  store_engine #(.UNITS(UNITS), .SPACES(SPACES), .BASE(BASE), .CAPACITY(CAPACITY)) u_store (
      .clk_i, .rst_i(reset), .cmd_valid_i(cmd_valid[STORE]), .cmd_ready_o(cmd_ready[STORE]),
      .cmd_opcode_i(cmd_opcode[STORE]), .cmd_word_i(cmd_word[STORE]), .done_o(cmd_done[STORE]), .error_o(cmd_error[STORE]),
      .error_code_o(cmd_error_code[STORE]),
      .rd_req_valid_o(rd_req_valid[STORE_READ+:2]), .rd_req_ready_i(rd_req_ready[STORE_READ+:2]),
      .rd_req_addr_o(rd_req_addr[STORE_READ+:2]), .rd_req_units_o(rd_req_units[STORE_READ+:2]),
      .rd_valid_i(rd_valid[STORE_READ+:2]), .rd_ready_o(rd_ready[STORE_READ+:2]), .rd_data_i(rd_data[STORE_READ+:2]),
      .rd_error_i(rd_error[STORE_READ+:2]),
      .wr_req_valid_o(wr_req_valid[STORE]), .wr_req_ready_i(wr_req_ready[STORE]), .wr_req_addr_o(wr_req_addr[STORE]),
      .wr_req_units_o(wr_req_units[STORE]), .wr_valid_o(wr_valid[STORE]), .wr_ready_i(wr_ready[STORE]),
      .wr_data_o(wr_data[STORE]), .wr_strb_o(wr_strb[STORE]), .wr_idle_i(wr_idle[STORE]), .wr_error_i(wr_error[STORE]),
      .table_write_o(table_write), .table_slot_o(table_slot), .table_index_o(table_index), .table_pair_o(table_pair));

  logic wt_last, unused_last;
  assign unused_last = ^rd_last[STORE_READ+:2];

  matrix_engine #(.UNITS(UNITS), .WEIGHT_UNITS(ROW_UNITS), .PORT_BYTES(32'(SPACE_STRIPE[WEIGHT_SPACE])), .HALVES(HALVES),
                  .SHARE(SHARE), .LANES(EPILOGUE_LANES), .ACTIVATION_ELEMENTS(ACTIVATION_ELEMENTS), .ACCUMULATORS(ACCUMULATORS),
                  .ROWS_MOST(ROWS_MOST), .RESULT_BLOCKS(RESULT_BLOCKS)) u_matrix (
      .clk_i, .rst_i(reset), .cmd_valid_i(cmd_valid[MATRIX]), .cmd_ready_o(cmd_ready[MATRIX]),
      .cmd_turn_i(cmd_turn[MATRIX]), .cmd_begin_o(cmd_begin[MATRIX]), .cmd_drop_i(cmd_drop[MATRIX]),
      .cmd_opcode_i(cmd_opcode[MATRIX]), .cmd_word_i(cmd_word[MATRIX]), .done_o(cmd_done[MATRIX]),
      .error_o(cmd_error[MATRIX]), .error_code_o(cmd_error_code[MATRIX]),
      .wt_req_valid_o(wt_req_valid), .wt_req_ready_i(wt_req_ready), .wt_req_addr_o(wt_req_addr),
      .wt_req_units_o(wt_req_units), .wt_valid_i(wt_valid), .wt_ready_o(wt_ready), .wt_data_i(wt_data),
      .wt_last_i(wt_last), .wt_error_i(wt_error),
      .rd_req_valid_o(rd_req_valid[MATRIX_READ+:2]), .rd_req_ready_i(rd_req_ready[MATRIX_READ+:2]),
      .rd_req_addr_o(rd_req_addr[MATRIX_READ+:2]), .rd_req_units_o(rd_req_units[MATRIX_READ+:2]),
      .rd_valid_i(rd_valid[MATRIX_READ+:2]), .rd_ready_o(rd_ready[MATRIX_READ+:2]), .rd_data_i(rd_data[MATRIX_READ+:2]),
      .rd_last_i(rd_last[MATRIX_READ+:2]), .rd_error_i(rd_error[MATRIX_READ+:2]),
      .wr_req_valid_o(wr_req_valid[MATRIX]), .wr_req_ready_i(wr_req_ready[MATRIX]), .wr_req_addr_o(wr_req_addr[MATRIX]),
      .wr_req_units_o(wr_req_units[MATRIX]), .wr_valid_o(wr_valid[MATRIX]), .wr_ready_i(wr_ready[MATRIX]),
      .wr_data_o(wr_data[MATRIX]), .wr_strb_o(wr_strb[MATRIX]), .wr_idle_i(wr_idle[MATRIX]), .wr_error_i(wr_error[MATRIX]),
      .act_slot_o(act_slot), .act_index_o(act_index), .act_pair_i(act_pair));

  act_tables #(.READERS(EPILOGUE_LANES)) u_epilogue_tables (
      .clk_i, .rst_i(reset), .write_i(table_write), .write_slot_i(table_slot), .write_index_i(table_index),
      .write_pair_i(table_pair), .slot_i(act_slot), .index_i(act_index), .pair_o(act_pair));

  vector_engine #(.UNITS(UNITS), .LANES(LANES), .WORDS(MAX_PAYLOAD_WORDS)) u_vector (
      .clk_i, .rst_i(reset), .cmd_valid_i(cmd_valid[VECTOR]), .cmd_ready_o(cmd_ready[VECTOR]),
      .cmd_opcode_i(cmd_opcode[VECTOR]), .cmd_word_i(cmd_word[VECTOR]), .done_o(cmd_done[VECTOR]),
      .error_o(cmd_error[VECTOR]), .error_code_o(cmd_error_code[VECTOR]),
      .rd_req_valid_o(rd_req_valid[VECTOR_READ]), .rd_req_ready_i(rd_req_ready[VECTOR_READ]),
      .rd_req_addr_o(rd_req_addr[VECTOR_READ]), .rd_req_units_o(rd_req_units[VECTOR_READ]),
      .rd_valid_i(rd_valid[VECTOR_READ]), .rd_ready_o(rd_ready[VECTOR_READ]), .rd_data_i(rd_data[VECTOR_READ]),
      .rd_last_i(rd_last[VECTOR_READ]), .rd_error_i(rd_error[VECTOR_READ]),
      .wr_req_valid_o(wr_req_valid[VECTOR]), .wr_req_ready_i(wr_req_ready[VECTOR]), .wr_req_addr_o(wr_req_addr[VECTOR]),
      .wr_req_units_o(wr_req_units[VECTOR]), .wr_valid_o(wr_valid[VECTOR]), .wr_ready_i(wr_ready[VECTOR]),
      .wr_data_o(wr_data[VECTOR]), .wr_strb_o(wr_strb[VECTOR]), .wr_idle_i(wr_idle[VECTOR]), .wr_error_i(wr_error[VECTOR]),
      .table_write_i(table_write), .table_slot_i(table_slot), .table_index_i(table_index), .table_pair_i(table_pair));

  // -- Memory -----------------------------------------------------------------------------------------------------

  logic fabric_quiet;
  assign quiet = fabric_quiet && idle == '1;

  memory_fabric #(.READERS(READERS), .WRITERS(WRITERS), .UNITS(UNITS), .ROW_UNITS(ROW_UNITS), .PORT_BYTES(PORT_BYTES),
                  .SPACES(SPACES), .BASE(BASE), .CAPACITY(CAPACITY), .SPACE_CHANNELS(SPACE_CHANNELS),
                  .SPACE_STRIPE(SPACE_STRIPE), .CHANNELS(CHANNELS), .CHUNK(CHUNK), .READ_ROWS(READ_ROWS),
                  .CLIENT_ROWS(CLIENT_ROWS)) u_fabric (
      .clk_i, .rst_i(reset), .quiet_o(fabric_quiet),
      .rd_req_valid_i(rd_req_valid), .rd_req_ready_o(rd_req_ready), .rd_req_addr_i(rd_req_addr),
      .rd_req_units_i(rd_req_units), .rd_valid_o(rd_valid), .rd_ready_i(rd_ready), .rd_data_o(rd_data),
      .rd_last_o(rd_last), .rd_error_o(rd_error),
      .wt_req_valid_i(wt_req_valid), .wt_req_ready_o(wt_req_ready), .wt_req_addr_i(wt_req_addr),
      .wt_req_units_i(wt_req_units), .wt_valid_o(wt_valid), .wt_ready_i(wt_ready), .wt_data_o(wt_data),
      .wt_last_o(wt_last), .wt_error_o(wt_error),
      .wr_req_valid_i(wr_req_valid), .wr_req_ready_o(wr_req_ready), .wr_req_addr_i(wr_req_addr),
      .wr_req_units_i(wr_req_units), .wr_valid_i(wr_valid), .wr_ready_o(wr_ready), .wr_data_i(wr_data),
      .wr_strb_i(wr_strb), .wr_idle_o(wr_idle), .wr_error_o(wr_error),
      .ar_valid_o(m_ar_valid_o), .ar_ready_i(m_ar_ready_i), .ar_addr_o(m_ar_addr_o), .ar_len_o(m_ar_len_o),
      .r_valid_i(m_r_valid_i), .r_ready_o(m_r_ready_o), .r_data_i(m_r_data_i), .r_resp_i(m_r_resp_i),
      .aw_valid_o(m_aw_valid_o), .aw_ready_i(m_aw_ready_i), .aw_addr_o(m_aw_addr_o), .aw_len_o(m_aw_len_o),
      .w_valid_o(m_w_valid_o), .w_ready_i(m_w_ready_i), .w_data_o(m_w_data_o), .w_strb_o(m_w_strb_o),
      .w_last_o(m_w_last_o), .b_valid_i(m_b_valid_i), .b_ready_o(m_b_ready_o), .b_resp_i(m_b_resp_i));

endmodule
