// What a command reads and writes, for the checks that come before it: doc/isa says it in prose. An operand is rows
// of elements at regular distances, or elements that follow each other without a gap.
package operand_pkg;

  import dlavm_isa_pkg::*;

  // Instead of a payload word: one; what operand_check derives from the fields.
  localparam logic [4:0] ONE = 5'd31;
  localparam logic [4:0] DERIVED = 5'd30;

  typedef enum logic [2:0] {
    PLAIN = 3'd0,
    SCORES = 3'd1,   // source rows of SOFTMAX, of which each is read where its token sees
    APPEND = 3'd2,   // places of tokens in the cache
    CACHED = 3'd3,   // blocks of 32 tokens of the cache, as LINEAR reads them
    TILED = 3'd4,    // row tiles of packed weights
    NAMED = 3'd5     // table rows that GATHER's ids name: counted here, looked at by the engine
  } kind_e;

  typedef struct packed {
    logic            used;
    kind_e           kind;
    logic            write;
    logic [4:0]      addr;
    logic            contiguous;
    logic [2:0][4:0] count;   // payload words
    logic [2:0][4:0] stride;
    logic [4:0]      length;  // elements of a row
    logic [3:0]      shift;   // of an element, log2 of bytes
  } operand_t;

  // A word's number is far below 32.
  // verilator lint_off UNUSEDSIGNAL
  function automatic logic [4:0] w(input int unsigned word);
    w = 5'(word);
  endfunction
  // verilator lint_on UNUSEDSIGNAL

  // Rows of fp16.
  function automatic operand_t rows(input logic write, input logic [4:0] addr, input logic [4:0] so, input logic [4:0] si,
                                    input logic [4:0] rows_o, input logic [4:0] rows_i, input logic [4:0] length);
    rows = '{1'b1, PLAIN, write, addr, 1'b0, {ONE, rows_o, rows_i}, {ONE, so, si}, length, 4'd1};
  endfunction

  // As many elements as the product of the counts, one behind the other.
  function automatic operand_t array(input logic write, input logic [4:0] addr, input logic [4:0] a, input logic [4:0] b,
                                     input logic [4:0] c, input logic [3:0] shift);
    array = '{1'b1, PLAIN, write, addr, 1'b1, {a, b, c}, {ONE, ONE, ONE}, ONE, shift};
  endfunction

  // The same rows in every batch.
  function automatic operand_t batched(input operand_t one, input logic [4:0] batch, input logic [4:0] stride);
    batched           = one;
    batched.count[2]  = batch;
    batched.stride[2] = stride;
  endfunction

  // Payload words of which none may be zero: else the command does nothing.
  function automatic logic [31:0] zero_words(input logic [7:0] opcode);
    case (opcode)
      OP_LINEAR: zero_words = 32'd1 << LINEAR_ROWS_O_WORD | 32'd1 << LINEAR_ROWS_I_WORD | 32'd1 << LINEAR_N_WORD
                              | 32'd1 << LINEAR_BATCH_WORD;
      OP_SOFTMAX: zero_words = 32'd1 << SOFTMAX_ROWS_O_WORD | 32'd1 << SOFTMAX_ROWS_I_WORD | 32'd1 << SOFTMAX_BATCH_WORD;
      OP_NORM, OP_ROPE, OP_ACT, OP_ELTWISE:
        zero_words = 32'd1 << NORM_ROWS_O_WORD | 32'd1 << NORM_ROWS_I_WORD | 32'd1 << NORM_DIM_WORD;
      OP_PERMUTE, OP_COPY: zero_words = 32'd1 << COPY_ROWS_O_WORD | 32'd1 << COPY_ROWS_I_WORD | 32'd1 << COPY_DIM_WORD;
      OP_ARGMAX: zero_words = 32'd1 << ARGMAX_ROWS_O_WORD | 32'd1 << ARGMAX_N_WORD;
      OP_TOPK: zero_words = 32'd1 << TOPK_ROWS_O_WORD | 32'd1 << TOPK_N_WORD | 32'd1 << TOPK_K_WORD;
      OP_KV_APPEND: zero_words = 32'd1 << KV_APPEND_ROWS_O_WORD | 32'd1 << KV_APPEND_ROWS_I_WORD | 32'd1 << KV_APPEND_DIM_WORD;
      OP_GATHER: zero_words = 32'd1 << GATHER_ROWS_O_WORD | 32'd1 << GATHER_DIM_WORD;
      default: zero_words = '0;
    endcase
  endfunction

  // The operands of LINEAR. Only packed weights and the cache are no rows.
  function automatic operand_t linear_operand(input logic [2:0] index, input logic [31:0] flags);
    logic cache, acc_out;
    logic [4:0] ro, ri, n, b;
    cache   = flags[LINEAR_FORMAT_LSB+:LINEAR_FORMAT_BITS] inside
        {WEIGHT_FORMAT_KV_K, WEIGHT_FORMAT_KV_V, WEIGHT_FORMAT_KVQ_K, WEIGHT_FORMAT_KVQ_V};
    acc_out = flags[LINEAR_ACC_OUT_LSB];
    ro = w(LINEAR_ROWS_O_WORD);
    ri = w(LINEAR_ROWS_I_WORD);
    n  = w(LINEAR_N_WORD);
    b  = w(LINEAR_BATCH_WORD);
    linear_operand = '0;
    case (index)
      3'd0: linear_operand = '{1'b1, cache ? CACHED : TILED, 1'b0, w(LINEAR_WGT_WORD), 1'b0, {b, DERIVED, ONE},
                               {w(LINEAR_WGT_B_WORD), w(LINEAR_WGT_TILE_WORD), ONE}, DERIVED, 4'd0};
      3'd1: linear_operand = batched(rows(1'b0, w(LINEAR_SRC_WORD), w(LINEAR_SRC_SO_WORD), w(LINEAR_SRC_SI_WORD), ro, ri,
                                          w(LINEAR_K_WORD)), b, w(LINEAR_SRC_B_WORD));
      3'd2: begin
        linear_operand      = array(1'b0, w(LINEAR_ROW_SCALE_WORD), b, ro, ri, 4'd2);
        linear_operand.used = flags[LINEAR_USE_ROW_SCALE_LSB] && !acc_out;
      end
      3'd3: begin
        linear_operand      = array(1'b0, w(LINEAR_BIAS_WORD), n, ONE, ONE, 4'd1);
        linear_operand.used = flags[LINEAR_USE_BIAS_LSB] && !acc_out;
      end
      3'd4: begin
        linear_operand      = rows(1'b0, w(LINEAR_AUX_WORD), w(LINEAR_AUX_SO_WORD), w(LINEAR_AUX_SI_WORD), ro, ri, n);
        linear_operand.used = flags[LINEAR_AUX_MODE_LSB+:LINEAR_AUX_MODE_BITS] != AUX_MODE_NONE && !acc_out;
      end
      3'd5: begin
        linear_operand      = batched(rows(1'b1, w(LINEAR_DST_WORD), w(LINEAR_DST_SO_WORD), w(LINEAR_DST_SI_WORD), ro, ri, n),
                                      b, w(LINEAR_DST_B_WORD));
        linear_operand.used = !acc_out;
      end
      default: ;
    endcase
  endfunction

  function automatic operand_t softmax_operand(input logic [2:0] index, input logic [31:0] flags);
    logic [4:0] ro, ri, b;
    ro = w(SOFTMAX_ROWS_O_WORD);
    ri = w(SOFTMAX_ROWS_I_WORD);
    b  = w(SOFTMAX_BATCH_WORD);
    softmax_operand = '0;
    case (index)
      3'd0: begin
        softmax_operand = batched(rows(1'b0, w(SOFTMAX_SRC_WORD), w(SOFTMAX_SRC_SO_WORD), w(SOFTMAX_SRC_SI_WORD), ro, ri,
                                       DERIVED), b, w(SOFTMAX_SRC_B_WORD));
        softmax_operand.kind = SCORES;
      end
      3'd1: begin
        softmax_operand      = array(1'b0, w(SOFTMAX_SLOPES_WORD), b, ri, ONE, 4'd2);
        softmax_operand.used = flags[SOFTMAX_USE_SLOPES_LSB];
      end
      3'd2: softmax_operand = batched(rows(1'b1, w(SOFTMAX_DST_WORD), w(SOFTMAX_DST_SO_WORD), w(SOFTMAX_DST_SI_WORD), ro, ri,
                                           w(SOFTMAX_WIDTH_WORD)), b, w(SOFTMAX_DST_B_WORD));
      3'd3: softmax_operand = array(1'b1, w(SOFTMAX_RECIP_WORD), b, ro, ri, 4'd2);
      default: ;
    endcase
  endfunction

  // Commands of the group `rows`, whose fields stand in the same words: source, destination, and what each adds.
  function automatic operand_t rows_operand(input logic [7:0] opcode, input logic [2:0] index, input logic [31:0] flags);
    logic [4:0] ro, ri, dim;
    ro  = w(NORM_ROWS_O_WORD);
    ri  = w(NORM_ROWS_I_WORD);
    dim = w(NORM_DIM_WORD);
    rows_operand = '0;
    case ({opcode, index})
      {OP_NORM, 3'd2}: rows_operand = array(1'b0, w(NORM_GAMMA_WORD), dim, ONE, ONE, 4'd1);
      {OP_NORM, 3'd3}: begin
        rows_operand      = array(1'b0, w(NORM_BETA_WORD), dim, ONE, ONE, 4'd1);
        rows_operand.used = flags[NORM_USE_BETA_LSB];
      end
      {OP_ROPE, 3'd2}: rows_operand = rows(1'b0, w(ROPE_TABLE_WORD), w(ROPE_TABLE_SO_WORD), ONE, ro, ONE, w(ROPE_ROT_WORD));
      {OP_ELTWISE, 3'd2}: begin
        rows_operand      = rows(1'b0, w(ELTWISE_B_WORD), w(ELTWISE_B_SO_WORD), w(ELTWISE_B_SI_WORD), ro, ri, dim);
        rows_operand.used = flags[ELTWISE_FN_LSB+:ELTWISE_FN_BITS] != ELTWISE_FN_SCALE;
      end
      default:
        if (index == 3'd0) rows_operand = rows(1'b0, w(NORM_SRC_WORD), w(NORM_SRC_SO_WORD), w(NORM_SRC_SI_WORD), ro, ri, dim);
        else if (index == 3'd1) rows_operand = rows(1'b1, w(NORM_DST_WORD), w(NORM_DST_SO_WORD), w(NORM_DST_SI_WORD), ro, ri, dim);
    endcase
  endfunction

  // The operand `index` of a command; `used` is low where it has none.
  function automatic operand_t operand(input logic [7:0] opcode, input logic [2:0] index, input logic [31:0] flags);
    logic [4:0] ro, ri;
    ro = w(COPY_ROWS_O_WORD);
    ri = w(COPY_ROWS_I_WORD);
    operand = '0;
    case ({opcode, index})
      {OP_COPY, 3'd0}: operand = rows(1'b0, w(COPY_SRC_WORD), w(COPY_SRC_SO_WORD), w(COPY_SRC_SI_WORD), ro, ri, w(COPY_DIM_WORD));
      {OP_COPY, 3'd1}: operand = rows(1'b1, w(COPY_DST_WORD), w(COPY_DST_SO_WORD), w(COPY_DST_SI_WORD), ro, ri, w(COPY_DIM_WORD));
      {OP_PERMUTE, 3'd0}: operand = array(1'b0, w(PERMUTE_INDEX_WORD), w(PERMUTE_DIM_WORD), ONE, ONE, 4'd2);
      {OP_PERMUTE, 3'd1}: operand = rows(1'b0, w(PERMUTE_SRC_WORD), w(PERMUTE_SRC_SO_WORD), w(PERMUTE_SRC_SI_WORD), ro, ri,
                                         w(PERMUTE_LIMIT_WORD));
      {OP_PERMUTE, 3'd2}: operand = rows(1'b1, w(PERMUTE_DST_WORD), w(PERMUTE_DST_SO_WORD), w(PERMUTE_DST_SI_WORD), ro, ri,
                                         w(PERMUTE_DIM_WORD));
      {OP_ARGMAX, 3'd0}: operand = rows(1'b0, w(ARGMAX_SRC_WORD), w(ARGMAX_SRC_SO_WORD), ONE, w(ARGMAX_ROWS_O_WORD), ONE,
                                        w(ARGMAX_N_WORD));
      {OP_ARGMAX, 3'd1}: operand = array(1'b1, w(ARGMAX_DST_WORD), w(ARGMAX_ROWS_O_WORD), ONE, ONE, 4'd2);
      {OP_TOPK, 3'd0}: operand = rows(1'b0, w(TOPK_SRC_WORD), w(TOPK_SRC_SO_WORD), ONE, w(TOPK_ROWS_O_WORD), ONE, w(TOPK_N_WORD));
      {OP_TOPK, 3'd1}: operand = array(1'b1, w(TOPK_IDS_WORD), w(TOPK_ROWS_O_WORD), w(TOPK_K_WORD), ONE, 4'd2);
      {OP_TOPK, 3'd2}: operand = array(1'b1, w(TOPK_WEIGHTS_WORD), w(TOPK_ROWS_O_WORD), w(TOPK_K_WORD), ONE, 4'd2);
      {OP_KV_APPEND, 3'd0}: operand = rows(1'b0, w(KV_APPEND_SRC_WORD), w(KV_APPEND_SRC_SO_WORD), w(KV_APPEND_SRC_SI_WORD),
                                           w(KV_APPEND_ROWS_O_WORD), w(KV_APPEND_ROWS_I_WORD), w(KV_APPEND_DIM_WORD));
      {OP_KV_APPEND, 3'd1}: operand = '{1'b1, APPEND, 1'b1, w(KV_APPEND_CACHE_WORD), 1'b0,
                                        {ONE, w(KV_APPEND_ROWS_O_WORD), w(KV_APPEND_ROWS_I_WORD)},
                                        {ONE, ONE, w(KV_APPEND_CACHE_HEAD_WORD)}, w(KV_APPEND_DIM_WORD), 4'd1};
      {OP_GATHER, 3'd0}: operand = array(1'b0, w(GATHER_IDS_WORD), w(GATHER_ROWS_O_WORD), ONE, ONE, 4'd2);
      {OP_GATHER, 3'd1}: operand = rows(1'b1, w(GATHER_DST_WORD), w(GATHER_DST_SO_WORD), ONE, w(GATHER_ROWS_O_WORD), ONE,
                                        w(GATHER_DIM_WORD));
      {OP_GATHER, 3'd2}: operand = '{1'b1, NAMED, 1'b0, w(GATHER_TABLE_WORD), 1'b0, {ONE, ONE, w(GATHER_ROWS_O_WORD)},
                                     {ONE, ONE, ONE}, w(GATHER_DIM_WORD), 4'd1};
      {OP_LOAD_TABLE, 3'd0}: operand = array(1'b0, w(LOAD_TABLE_TABLE_WORD), ONE, ONE, ONE, 4'd14);
      default:
        case (opcode)
          OP_LINEAR: operand = linear_operand(index, flags);
          OP_SOFTMAX: operand = softmax_operand(index, flags);
          OP_NORM, OP_ROPE, OP_ACT, OP_ELTWISE: operand = rows_operand(opcode, index, flags);
          default: ;
        endcase
    endcase
  endfunction

endpackage
