// Reads one command: header, indirect mask, payload with the values of scalar registers in place of their numbers;
// checks what the encoding demands. A word a cycle. `start_i` begins at the word that comes next; `done_o` marks the
// cycle in which everything is known, and it stays until the next start.
//
// Without header words the first word is the opcode alone, as the host launches it, and all the others are there.
//
// The payload of a command whose predicate register holds zero is passed over; only LOOP needs it all the same.
module command_reader #(
    parameter int unsigned HEADER_WORDS = 2,        // 1: no indirect mask; 0: no header
    parameter logic [255:0] OPCODES = '1,           // those that the target has
    parameter logic [31:0] WEIGHT_FORMATS = '1,
    parameter int unsigned SCALARS = 32
) (
    input  logic                  clk_i,
    input  logic                  rst_i,
    input  logic                  start_i,
    input  logic [33:0]           pc_i,             // of the command, steady until done
    input  logic [31:0]           program_words_i,
    input  logic                  in_memory_i,      // the whole program is
    input  logic                  word_valid_i,
    output logic                  word_ready_o,
    input  logic [31:0]           word_i,
    input  logic                  word_error_i,
    output logic [4:0]            scalar_o,         // whose value is needed now
    input  logic [31:0]           scalar_value_i,

    output logic                  done_o,
    output logic                  counts_o,         // with done: the header was valid
    output dlavm_isa_pkg::error_e error_o,
    output logic                  skip_o,           // by its predicate
    output logic [7:0]            opcode_o,
    output logic [33:0]           next_o,           // word behind the command
    output logic [31:0]           words_o [dlavm_isa_pkg::MAX_PAYLOAD_WORDS]
);

  import dlavm_isa_pkg::*;

  typedef enum logic [2:0] {IDLE, HEADER, PREDICATE, MASK, PAYLOAD, DONE} state_e;
  state_e state_q;

  // Whose command it is matters to the front end.
  // verilator lint_off UNUSEDSIGNAL
  command_t    command;
  // verilator lint_on UNUSEDSIGNAL
  logic [5:0]  count_q;
  logic [31:0] dynamic_q, packed_q;
  logic [7:0]  opcode_q;
  logic [4:0]  predicate_q, index_q;
  logic [31:0] mask_q, value;
  logic        bad_register_q, reserved_q, range_q, bad_register, reserved, range, taken, indirect, last;
  logic [5:0]  length, bits;
  error_e      header_error;

  assign taken        = word_valid_i && word_ready_o;
  assign word_ready_o = (state_q == HEADER && in_memory_i && pc_i < {2'd0, program_words_i}) || state_q == MASK
                        || state_q == PAYLOAD;
  assign command      = command_of(word_i[7:0]);
  assign length       = command.words + 6'(HEADER_WORDS);
  assign done_o       = state_q == DONE;
  assign opcode_o     = opcode_q;

  always_comb begin
    header_error = ERROR_NONE;
    if (!command.known || !OPCODES[word_i[7:0]] || (HEADER_WORDS == 0 && word_i[31:8] != 0))
      header_error = ERROR_ILLEGAL_OPCODE;
    else if (HEADER_WORDS != 0 && (word_i[15:8] != 8'(length) || pc_i + 34'(length) > {2'd0, program_words_i}))
      header_error = ERROR_BAD_LENGTH;
    else if (HEADER_WORDS != 0 && (word_i[31:21] != 0 || (word_i[20:16] != 0 && (!command.predicate || HEADER_WORDS < 2))))
      header_error = ERROR_RESERVED_BITS;
    else if (HEADER_WORDS > 1 && 6'(word_i[20:16]) >= 6'(SCALARS)) header_error = ERROR_FIELD_RANGE;
  end

  assign indirect = mask_q[index_q];
  assign scalar_o = (state_q == PREDICATE) ? predicate_q : word_i[4:0];
  assign value    = indirect ? scalar_value_i : word_i;
  assign bits     = word_bits(opcode_q, index_q);

  // The target has a cache where LINEAR reads its keys.
  weight_format_e format;
  always_comb begin
    format = weight_format_e'(value[LINEAR_FORMAT_LSB+:LINEAR_FORMAT_BITS]);
    if (opcode_q == OP_KV_APPEND)
      format = (value[KV_APPEND_FORMAT_LSB] == KV_FORMAT_MXINT8) ? WEIGHT_FORMAT_KVQ_K : WEIGHT_FORMAT_KV_K;
  end

  // Without scalars nothing is indirect.
  localparam logic [31:0] LAST_SCALAR = (SCALARS == 0) ? '0 : SCALARS - 1;
  assign bad_register = bad_register_q || (indirect && word_i > LAST_SCALAR);
  assign reserved     = reserved_q || (index_q == 0 && (value & ~packed_q) != 0);
  always_comb begin
    range = range_q || (bits < 6'd32 && (value >> bits) != 0);
    if (index_q == 0 && packed_refused(opcode_q, value)) range = 1'b1;
    if (index_q == 0 && opcode_q inside {OP_LINEAR, OP_KV_APPEND} && !WEIGHT_FORMATS[format]) range = 1'b1;
  end
  assign last     = index_q == 5'(count_q - 6'd1);

  always_ff @(posedge clk_i) begin
    case (state_q)
      IDLE, DONE: if (start_i) begin
        state_q        <= HEADER;
        counts_o       <= 1'b0;
        skip_o         <= 1'b0;
        mask_q         <= '0;
        index_q        <= '0;
        bad_register_q <= 1'b0;
        reserved_q     <= 1'b0;
        range_q        <= 1'b0;
        error_o        <= ERROR_NONE;
      end else begin
        state_q <= IDLE;
      end
      HEADER: begin
        opcode_q    <= word_i[7:0];
        count_q     <= command.words;
        dynamic_q   <= command.dynamic_words;
        packed_q    <= command.packed_bits;
        predicate_q <= (HEADER_WORDS > 1) ? word_i[20:16] : '0;
        next_o      <= pc_i + 34'(length);
        if (pc_i >= {2'd0, program_words_i}) begin
          error_o <= ERROR_BAD_LENGTH;
          state_q <= DONE;
        end else if (!in_memory_i) begin
          error_o <= ERROR_BAD_ADDRESS;
          state_q <= DONE;
        end else if (taken) begin
          error_o <= word_error_i ? ERROR_BUS : header_error;
          state_q <= (word_error_i || header_error != ERROR_NONE) ? DONE : PREDICATE;
        end
      end
      PREDICATE: begin
        skip_o   <= predicate_q != 0 && scalar_value_i == 0;
        counts_o <= HEADER_WORDS < 2;
        if (HEADER_WORDS > 1) state_q <= MASK;
        else state_q <= (count_q == 0) ? DONE : PAYLOAD;
      end
      MASK: if (taken) begin
        mask_q   <= word_i;
        counts_o <= !word_error_i && (word_i & ~dynamic_q) == 0;
        state_q  <= (count_q == 0) ? DONE : PAYLOAD;
        if (word_error_i || (word_i & ~dynamic_q) != 0) begin
          error_o <= word_error_i ? ERROR_BUS : ERROR_RESERVED_BITS;
          state_q <= DONE;
        end
      end
      PAYLOAD: if (taken) begin
        words_o[index_q] <= value;
        index_q          <= index_q + 5'd1;
        bad_register_q   <= bad_register;
        reserved_q       <= reserved;
        range_q          <= range;
        if (last) state_q <= DONE;
        if (word_error_i) begin
          error_o <= ERROR_BUS;
          state_q <= DONE;
        end
      end
      default: state_q <= IDLE;
    endcase
    // What the payload's words have shown counts when all of them are here, the first of these first.
    if (state_q == PAYLOAD && taken && last && !word_error_i && (!skip_o || opcode_q == OP_LOOP)) begin
      if (bad_register) error_o <= ERROR_FIELD_RANGE;
      else if (reserved) error_o <= ERROR_RESERVED_BITS;
      else if (range) error_o <= ERROR_FIELD_RANGE;
    end
    if (rst_i) state_q <= IDLE;
  end

endmodule
