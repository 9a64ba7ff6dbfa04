// The vector engine: NORM, SOFTMAX, ROPE, ACT, ELTWISE, ARGMAX, PERMUTE, TOPK (doc/numerics.md sections 4 to 8, 11). The sequencer
// cuts a command into strips; the loader brings them, the lanes work on them step by step, the storer writes what
// comes out, each at its own pace. Rows of any length pass through: what needs a row again reads it again.
// The words of a command are steady until `done_o` or `error_o`.
module vector_engine #(
    parameter int unsigned UNITS = 2,   // of a memory beat, 16 bytes each
    parameter int unsigned LANES = 8,   // a power of two, 8 to 128, and no more than a beat has halves
    parameter int unsigned VIRTUAL = 128,  // virtual lanes of a reduction; fewer in tests, for what many lanes do
    parameter int unsigned WORDS = dlavm_isa_pkg::LINEAR_WORDS
) (
    input  logic                    clk_i,
    input  logic                    rst_i,

    input  logic                    cmd_valid_i,
    output logic                    cmd_ready_o,
    input  logic [7:0]              cmd_opcode_i,
    input  logic [31:0]             cmd_word_i [WORDS],
    output logic                    done_o,
    output logic                    error_o,
    output logic [3:0]              error_code_o,

    output logic                    rd_req_valid_o,
    input  logic                    rd_req_ready_i,
    output logic [39:0]             rd_req_addr_o,
    output logic [23:0]             rd_req_units_o,
    input  logic                    rd_valid_i,
    output logic                    rd_ready_o,
    input  logic [UNITS*128-1:0]    rd_data_i,
    input  logic                    rd_last_i,
    input  logic                    rd_error_i,

    output logic                    wr_req_valid_o,
    input  logic                    wr_req_ready_i,
    output logic [39:0]             wr_req_addr_o,
    output logic [23:0]             wr_req_units_o,
    output logic                    wr_valid_o,
    input  logic                    wr_ready_i,
    output logic [UNITS*128-1:0]    wr_data_o,
    output logic [UNITS*16-1:0]     wr_strb_o,
    input  logic                    wr_idle_i,
    input  logic                    wr_error_i,

    // LOAD_TABLE, while no command runs.
    input  logic                    table_write_i,
    input  logic [1:0]              table_slot_i,
    input  logic [10:0]             table_index_i,
    input  logic [63:0]             table_pair_i   // {base, slope}
);

  import vector_pkg::*;

  if (LANES < 8 || LANES > VIRTUAL || LANES > UNITS * 8 || (LANES & (LANES - 1)) != 0) begin : g_refuse
    $error("LANES: expected a power of two from 8 to 128, at most the %0d halves of a beat, got %0d", UNITS * 8, LANES);
  end

  localparam int unsigned OUTS = 32;   // chunks on their way to memory
  localparam int unsigned ANSWERS = 8; // words on their way to memory
  localparam int unsigned WRITES = 4 * GROUP;  // requests: loads of a strip do not wait for the writes of the one before

  job_t decoded, job;
  logic start, idle, bus_error_q, bad_index;
  vector_decode #(.LANES(LANES), .VIRTUAL(VIRTUAL), .WORDS(WORDS)) u_decode (
      .opcode_i(cmd_opcode_i), .word_i(cmd_word_i), .job_o(decoded));

  // The sequencer and its queues.
  load_t  load_in, load;
  work_t  work_in, work;
  write_t write_in, write;
  logic   load_in_valid, load_in_ready, load_valid, load_ready, work_in_valid, work_in_ready, work_valid, work_ready;
  logic   write_in_valid, write_in_ready, write_valid, write_ready;
  logic   permute_valid, permute_ready, permute_check;
  logic [35:0] permute_index, permute_src;
  dlavm_isa_pkg::error_e error_code;
  assign error_code_o = error_code;

  vector_sequencer #(.LANES(LANES)) u_sequencer (
      .clk_i, .rst_i, .cmd_valid_i, .cmd_ready_o, .cmd_i(decoded), .done_o, .error_o, .error_code_o(error_code),
      .bus_error_i(bus_error_q), .bad_index_i(bad_index), .idle_i(idle), .start_o(start), .job_o(job),
      .load_valid_o(load_in_valid), .load_ready_i(load_in_ready), .load_o(load_in),
      .work_valid_o(work_in_valid), .work_ready_i(work_in_ready), .work_o(work_in),
      .write_valid_o(write_in_valid), .write_ready_i(write_in_ready), .write_o(write_in),
      .permute_valid_o(permute_valid), .permute_ready_i(permute_ready), .permute_check_o(permute_check),
      .permute_index_o(permute_index), .permute_src_o(permute_src));

  fifo #(.WIDTH($bits(load_t)), .DEPTH(8)) u_loads (
      .clk_i, .rst_i, .valid_i(load_in_valid), .ready_o(load_in_ready), .data_i(load_in),
      .valid_o(load_valid), .ready_i(load_ready), .data_o(load));
  fifo #(.WIDTH($bits(work_t)), .DEPTH(4)) u_works (
      .clk_i, .rst_i, .valid_i(work_in_valid), .ready_o(work_in_ready), .data_i(work_in),
      .valid_o(work_valid), .ready_i(work_ready), .data_o(work));
  fifo #(.WIDTH($bits(write_t)), .DEPTH(WRITES)) u_writes (
      .clk_i, .rst_i, .valid_i(write_in_valid), .ready_o(write_in_ready), .data_i(write_in),
      .valid_o(write_valid), .ready_i(write_ready), .data_o(write));

  // Reading: strips for the lanes, or indices and elements of PERMUTE.
  logic        load_ask, permute_ask, load_take, permute_take, strip_loaded, chunk_loaded;
  logic [39:0] load_address, permute_address;
  logic [23:0] load_units, permute_units;
  logic [5:0]  load_place;
  logic [LANES-1:0][15:0] loaded;
  logic [1:0]  full_q;  // banks
  logic        load_bank_q, work_bank_q, strip_done;

  assign rd_req_valid_o = job.permute ? permute_ask : load_ask;
  assign rd_req_addr_o  = job.permute ? permute_address : load_address;
  assign rd_req_units_o = job.permute ? permute_units : load_units;
  assign rd_ready_o     = job.permute ? permute_take : load_take;

  vector_loader #(.UNITS(UNITS), .LANES(LANES)) u_loader (
      .clk_i, .rst_i, .load_valid_i(load_valid), .load_ready_o(load_ready), .load_i(load),
      .rd_req_valid_o(load_ask), .rd_req_ready_i, .rd_req_addr_o(load_address), .rd_req_units_o(load_units),
      .rd_valid_i(rd_valid_i && !job.permute), .rd_ready_o(load_take), .rd_data_i, .bank_full_i(full_q[load_bank_q]),
      .write_o(chunk_loaded), .place_o(load_place), .chunk_o(loaded), .strip_o(strip_loaded));

  always_ff @(posedge clk_i) begin
    if (rst_i) begin
      full_q      <= '0;
      load_bank_q <= 1'b0;
      work_bank_q <= 1'b0;
    end else begin
      if (strip_loaded) begin
        full_q[load_bank_q] <= 1'b1;
        load_bank_q         <= !load_bank_q;
      end
      if (strip_done) begin
        full_q[work_bank_q] <= 1'b0;
        work_bank_q         <= !work_bank_q;
      end
    end
  end

  // The lanes.
  logic   issued, lanes_idle, out_made, word_made, out_room, word_room;
  issue_t issue;
  logic [LANES-1:0][15:0] out_made_chunk, permuted;
  logic [31:0]            word_made_value;

  vector_issue #(.LANES(LANES), .VIRTUAL(VIRTUAL)) u_issue (
      .clk_i, .rst_i, .work_valid_i(work_valid), .work_ready_o(work_ready), .work_i(work),
      .strip_ready_i(full_q[work_bank_q]), .strip_done_o(strip_done), .out_ready_i(out_room), .word_ready_i(word_room),
      .valid_o(issued), .issue_o(issue), .idle_o(lanes_idle));

  vector_lanes #(.LANES(LANES)) u_lanes (
      .clk_i, .rst_i, .valid_i(issued), .issue_i(issue), .bank_i(work_bank_q),
      .load_valid_i(chunk_loaded), .load_place_i({load_bank_q, load_place}), .load_i(loaded),
      .immediate_i({job.immediate1, job.immediate0}), .act_slot_i(job.act_slot), .table_write_i, .table_slot_i,
      .table_index_i, .table_pair_i, .out_valid_o(out_made), .out_o(out_made_chunk), .word_valid_o(word_made),
      .word_o(word_made_value));

  logic permute_out, permute_out_ready;
  vector_permute #(.UNITS(UNITS), .LANES(LANES)) u_permute (
      .clk_i, .rst_i, .clear_i(start), .job_valid_i(permute_valid), .job_ready_o(permute_ready), .check_i(permute_check),
      .index_i(permute_index), .src_i(permute_src), .count_i(work_in.count), .limit_i(job.limit),
      .rd_req_valid_o(permute_ask), .rd_req_ready_i, .rd_req_addr_o(permute_address), .rd_req_units_o(permute_units),
      .rd_valid_i(rd_valid_i && job.permute), .rd_ready_o(permute_take), .rd_data_i,
      .out_valid_o(permute_out), .out_ready_i(permute_out_ready), .out_o(permuted), .bad_o(bad_index));

  // Writing. The lanes cannot be stopped: a step that puts something out begins when there is room for it.
  logic chunk_valid, chunk_ready, word_valid, word_ready, words_ready, storer_idle;
  logic [LANES-1:0][15:0] chunk;
  logic [31:0]            word;
  logic [$clog2(OUTS):0]    outs_q;
  logic [$clog2(ANSWERS):0] words_q;
  assign out_room  = outs_q != ($clog2(OUTS) + 1)'(OUTS);
  assign word_room = words_q != ($clog2(ANSWERS) + 1)'(ANSWERS);

  always_ff @(posedge clk_i) begin
    if (rst_i) begin
      outs_q  <= '0;
      words_q <= '0;
    end else begin
      outs_q  <= outs_q + ($clog2(OUTS) + 1)'(issued && issue.step.to == TO_OUT) -
                 ($clog2(OUTS) + 1)'(chunk_valid && chunk_ready && !job.permute);
      words_q <= words_q + ($clog2(ANSWERS) + 1)'(issued && issue.step.to == TO_WORD) -
                 ($clog2(ANSWERS) + 1)'(word_valid && word_ready);
    end
  end

  fifo #(.WIDTH(LANES * 16), .DEPTH(OUTS)) u_outs (
      .clk_i, .rst_i, .valid_i(job.permute ? permute_out : out_made), .ready_o(permute_out_ready),
      .data_i(job.permute ? permuted : out_made_chunk), .valid_o(chunk_valid), .ready_i(chunk_ready), .data_o(chunk));
  fifo #(.WIDTH(32), .DEPTH(ANSWERS)) u_answers (
      .clk_i, .rst_i, .valid_i(word_made), .ready_o(words_ready), .data_i(word_made_value),
      .valid_o(word_valid), .ready_i(word_ready), .data_o(word));

  vector_storer #(.UNITS(UNITS), .LANES(LANES)) u_storer (
      .clk_i, .rst_i, .mute_i(bus_error_q), .write_valid_i(write_valid), .write_ready_o(write_ready), .write_i(write),
      .chunk_valid_i(chunk_valid), .chunk_ready_o(chunk_ready), .chunk_i(chunk),
      .word_valid_i(word_valid), .word_ready_o(word_ready), .word_i(word),
      .wr_req_valid_o, .wr_req_ready_i, .wr_req_addr_o, .wr_req_units_o, .wr_valid_o, .wr_ready_i, .wr_data_o,
      .wr_strb_o, .idle_o(storer_idle));

  assign idle = lanes_idle && permute_ready && storer_idle && wr_idle_i;
  always_ff @(posedge clk_i) begin
    if (rst_i || start) bus_error_q <= 1'b0;
    else if ((rd_valid_i && rd_error_i) || wr_error_i) bus_error_q <= 1'b1;
  end

  // `last` is counted here; there is always room for a word that was let go.
  logic unused_bits;
  assign unused_bits = &{1'b0, rd_last_i, words_ready, job};

endmodule
