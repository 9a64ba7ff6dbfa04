// Looks at a command before its engine does: fields that no command of its kind takes, the range of every operand,
// and how many bytes the operands have. It walks the table of operand_pkg; about a dozen cycles an operand, while the
// engines are at work. `done_o` marks the cycle in which the results are there; they stay until the next start.
//
// An operand lies in one memory space from its first byte to its last.
module operand_check #(
    parameter int unsigned ROW_UNITS = 2,  // of a beat row of weights
    parameter int unsigned SPACES = 1,
    parameter logic [SPACES-1:0][mem_pkg::ADDRESS_WIDTH-1:0] BASE = '0,
    parameter logic [SPACES-1:0][mem_pkg::ADDRESS_WIDTH-1:0] CAPACITY = {SPACES{40'h1000}}
) (
    input  logic                            clk_i,
    input  logic                            rst_i,
    input  logic                            start_i,
    input  logic [7:0]                      opcode_i,    // steady until done, as the words
    input  logic [31:0]                     word_i [dlavm_isa_pkg::MAX_PAYLOAD_WORDS],
    output logic                            done_o,
    output logic                            nothing_o,   // the command has nothing to do
    output dlavm_isa_pkg::error_e           error_o,
    output logic [63:0]                     read_o,      // bytes
    output logic [63:0]                     written_o
);

  import dlavm_isa_pkg::*;
  import operand_pkg::*;

  localparam int unsigned ROW_TILE = 8 * ROW_UNITS;  // rows of packed weights that share beat rows

  typedef enum logic [3:0] {IDLE, FIELDS, NEXT, DERIVE, DERIVE_OFFSET, EXTEND, GROW, COUNTED, SUM, TOTAL, RANGE, DONE} state_e;
  state_e state_q;

  function automatic logic [31:0] word(input logic [31:0] words [MAX_PAYLOAD_WORDS], input logic [4:0] index);
    word = (32'(index) < MAX_PAYLOAD_WORDS) ? words[index] : 32'd1;
  endfunction

  function automatic logic [31:0] blocks_of_32(input logic [31:0] count);
    blocks_of_32 = (count + 32'd31) >> 5;
  endfunction

  // Fields that mean nothing, whatever memory there is.
  logic nothing, bad_field;
  always_comb begin
    nothing = 1'b0;
    for (int i = 0; i < int'(MAX_PAYLOAD_WORDS); i++)
      if (zero_words(opcode_i)[i] && word_i[i] == 0) nothing = 1'b1;
    case (opcode_i)
      OP_LINEAR: bad_field = word_i[LINEAR_K_WORD] == 0;
      OP_SOFTMAX: bad_field = word_i[SOFTMAX_VISIBLE_WORD] == 0 || word_i[SOFTMAX_WIDTH_WORD] == 0;
      OP_ROPE: bad_field = word_i[ROPE_ROT_WORD][0] || word_i[ROPE_ROT_WORD] > word_i[ROPE_DIM_WORD];
      OP_TOPK: bad_field = word_i[TOPK_K_WORD] > word_i[TOPK_N_WORD];
      default: bad_field = 1'b0;
    endcase
  end

  // The operand in work.
  logic [2:0]  index_q;
  logic [1:0]  level_q;
  // Two of its fields are looked at only as it comes from the table.
  // verilator lint_off UNUSEDSIGNAL
  operand_t    op, op_q;
  // verilator lint_on UNUSEDSIGNAL
  logic [31:0] derived_count_q, length_q, range_q, sum_q, left_q;
  logic [63:0] extent_q, elements_q, lead_q, product_q, factor_a, bytes;
  logic [31:0] factor_b, count, stride, seen_q, seen, window, width, shown, last_seen;
  logic        in_space;

  assign op     = operand(opcode_i, index_q, word_i[0]);
  assign count  = (op_q.count[level_q] == DERIVED) ? derived_count_q : word(word_i, op_q.count[level_q]);
  assign stride = (op_q.stride[level_q] == ONE) ? 32'd0 : word(word_i, op_q.stride[level_q]);

  // What SOFTMAX sees of row o.
  assign window    = word_i[SOFTMAX_WINDOW_WORD];
  assign width     = word_i[SOFTMAX_WIDTH_WORD];
  assign seen      = (seen_q < width) ? seen_q : width;
  assign shown     = (window != 0 && seen > window) ? window : seen;
  assign last_seen = word_i[SOFTMAX_VISIBLE_WORD] + word_i[SOFTMAX_ROWS_O_WORD] - 32'd1;

  // Sizes of the cache and of packed weights.
  // Only what decides how many beats there are.
  // verilator lint_off UNUSEDSIGNAL
  dlavm_formats_pkg::format_t format;
  // verilator lint_on UNUSEDSIGNAL
  weight_format_e             number;
  logic                       values, bytes_cache;
  logic [31:0]                k, n, k_blocks, groups, tile_beats, units, tokens, last_token, first_slot, last_slot;
  logic [31:0]                block_bytes, read_block;
  assign format     = dlavm_formats_pkg::format_of(number);
  assign number     = weight_format_e'(word_i[0][LINEAR_FORMAT_LSB+:LINEAR_FORMAT_BITS]);
  assign values     = number inside {WEIGHT_FORMAT_KV_V, WEIGHT_FORMAT_KVQ_V};
  assign k          = word_i[LINEAR_K_WORD];
  assign n          = word_i[LINEAR_N_WORD];
  assign k_blocks   = blocks_of_32(k);
  assign tokens     = values ? k : n;
  assign last_token = word_i[KV_APPEND_POS_WORD] + word_i[KV_APPEND_ROWS_O_WORD] - 32'd1;
  always_comb begin
    units = blocks_of_32(values ? n : k);
    bytes_cache = number inside {WEIGHT_FORMAT_KVQ_K, WEIGHT_FORMAT_KVQ_V};
    if (opcode_i == OP_KV_APPEND) begin
      units       = blocks_of_32(word_i[KV_APPEND_DIM_WORD]);
      bytes_cache = word_i[KV_APPEND_FORMAT_WORD][KV_APPEND_FORMAT_LSB] == KV_FORMAT_MXINT8;
    end
    groups = k_blocks;
    if (format.group_blocks[1]) groups = (k_blocks + 32'd1) >> 1;
    if (format.group_blocks[2]) groups = (k_blocks + 32'd3) >> 2;
    case (format.element)
      dlavm_formats_pkg::ELEMENT_INT4, dlavm_formats_pkg::ELEMENT_E2M1: tile_beats = k_blocks << 3;
      dlavm_formats_pkg::ELEMENT_E2M3: tile_beats = (k_blocks << 3) + (k_blocks << 2);
      default: tile_beats = k_blocks << 4;
    endcase
    tile_beats = tile_beats + (format.e8m0 ? (groups + 32'd1) >> 1 : groups) + (format.zero ? (groups + 32'd1) >> 1 : 32'd0);
  end
  assign first_slot  = 32'(word_i[KV_APPEND_POS_WORD][4:0]) << (bytes_cache ? 5 : 6);
  assign last_slot   = 32'(last_token[4:0]);
  assign block_bytes = kv_pkg::block_bytes(bytes_cache, units);
  assign read_block  = units * (bytes_cache ? kv_pkg::BYTE_UNIT + kv_pkg::EXPONENTS : kv_pkg::HALF_UNIT);

  // One multiplier for all of it.
  always_comb begin
    factor_a = elements_q;
    factor_b = count;
    case (state_q)
      DERIVE: begin
        factor_a = 64'(word_i[KV_APPEND_POS_WORD] >> 5);
        factor_b = block_bytes;
      end
      DERIVE_OFFSET: begin
        factor_a = 64'(last_token >> 5);
        factor_b = block_bytes;
      end
      EXTEND: begin
        factor_a = {28'd0, stride, 4'd0};
        factor_b = count - 32'd1;
      end
      TOTAL: factor_b = (op_q.kind == SCORES) ? sum_q : length_q;
      default: ;
    endcase
  end
  always_ff @(posedge clk_i) product_q <= factor_a * 64'(factor_b);

  assign bytes = op_q.contiguous ? product_q : extent_q + 64'(range_q);
  range_check #(.SPACES(SPACES), .BASE(BASE), .CAPACITY(CAPACITY)) u_range (
      .addr_i({28'd0, word(word_i, op_q.addr), 4'd0} + lead_q), .bytes_i(bytes - lead_q), .ok_o(in_space));

  assign done_o = state_q == DONE;

  always_ff @(posedge clk_i) begin
    case (state_q)
      IDLE: if (start_i) state_q <= FIELDS;
      FIELDS: begin
        index_q   <= '0;
        read_o    <= '0;
        written_o <= '0;
        nothing_o <= nothing;
        error_o   <= (!nothing && bad_field) ? ERROR_FIELD_RANGE : ERROR_NONE;
        state_q   <= (nothing || bad_field) ? DONE : NEXT;
      end
      NEXT: begin
        op_q       <= op;
        level_q    <= '0;
        extent_q   <= '0;
        elements_q <= 64'd1;
        lead_q     <= '0;
        length_q   <= word(word_i, op.length) << op.shift;
        range_q    <= word(word_i, op.length) << op.shift;
        if (op.used && (op.contiguous || word(word_i, op.length) != 0)) state_q <= (op.kind == PLAIN) ? EXTEND : DERIVE;
        else if (index_q == '1) state_q <= DONE;
        else index_q <= index_q + 3'd1;
      end
      DERIVE: begin
        // the product of the first token's block is on its way
        sum_q  <= '0;
        left_q <= word_i[SOFTMAX_ROWS_O_WORD];
        seen_q <= word_i[SOFTMAX_VISIBLE_WORD];
        case (op_q.kind)
          CACHED: begin
            derived_count_q <= blocks_of_32(tokens);
            length_q        <= read_block;
            range_q         <= read_block;
          end
          TILED: begin
            derived_count_q <= (n + ROW_TILE - 32'd1) / ROW_TILE;
            length_q        <= tile_beats * (ROW_UNITS * 16);
            range_q         <= tile_beats * (ROW_UNITS * 16);
          end
          SCORES: range_q <= ((last_seen < width) ? last_seen : width) << 1;
          default: ;
        endcase
        if (op_q.kind == APPEND) state_q <= DERIVE_OFFSET;
        else state_q <= (op_q.kind == SCORES) ? SUM : EXTEND;
      end
      DERIVE_OFFSET: begin
        lead_q   <= product_q + 64'(first_slot);
        // to the end of what is written last: the last unit's row, or its exponent
        range_q  <= (last_slot << 6) + (units - 32'd1) * (kv_pkg::HALF_UNIT - kv_pkg::HALF_ROW) + length_q;
        if (bytes_cache) begin
          range_q  <= units * (kv_pkg::BYTE_UNIT + kv_pkg::EXPONENTS) - kv_pkg::EXPONENTS + last_slot + 32'd1;
          length_q <= units * (kv_pkg::BYTE_ROW + 1);
        end
        state_q  <= EXTEND;
      end
      SUM: begin
        // bytes of a row before the first that is read: of the first row, which is the least
        if (left_q == word_i[SOFTMAX_ROWS_O_WORD]) lead_q <= 64'(seen - shown) << 1;
        sum_q  <= sum_q + (shown << 1);
        seen_q <= seen_q + 32'd1;
        left_q <= left_q - 32'd1;
        if (left_q == 32'd1) state_q <= EXTEND;
      end
      EXTEND: begin
        // of a cache the offset of the last token's block is on its way
        if (op_q.kind == APPEND && level_q == 0) extent_q <= product_q;
        state_q <= GROW;
        if (op_q.count[level_q] == ONE) begin  // as most have no batches
          level_q <= level_q + 2'd1;
          state_q <= (level_q == 2'd2) ? TOTAL : EXTEND;
        end
      end
      GROW: begin
        extent_q <= extent_q + product_q;
        state_q  <= COUNTED;
      end
      COUNTED: begin
        if (!(op_q.kind == SCORES && level_q == 2'd1)) elements_q <= product_q;  // its rows were counted one by one
        level_q <= level_q + 2'd1;
        state_q <= (level_q == 2'd2) ? TOTAL : EXTEND;
      end
      TOTAL: state_q <= RANGE;
      RANGE: begin
        if (op_q.write) written_o <= written_o + product_q;
        else read_o <= read_o + product_q;
        index_q <= index_q + 3'd1;
        state_q <= (index_q == '1) ? DONE : NEXT;
        if (!in_space && op_q.kind != NAMED) begin
          error_o <= ERROR_BAD_ADDRESS;
          state_q <= DONE;
        end
      end
      default: state_q <= IDLE;
    endcase
    if (rst_i) state_q <= IDLE;
  end

endmodule
