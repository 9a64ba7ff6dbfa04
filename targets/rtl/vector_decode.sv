// The fields of a vector command, and whether they are in range (doc/numerics.md, section 11). Combinational.
module vector_decode #(
    parameter int unsigned LANES = 8,
    parameter int unsigned VIRTUAL = 128,
    parameter int unsigned WORDS = dlavm_isa_pkg::LINEAR_WORDS
) (
    input  logic [7:0]        opcode_i,
    input  logic [31:0]       word_i [WORDS],
    output vector_pkg::job_t  job_o
);

  import dlavm_isa_pkg::*;
  import dlavm_vector_pkg::*;
  import vector_pkg::*;

  // A word that a scalar register brought may be past the field's limit.
  function automatic logic over(input logic [31:0] value, input int unsigned bits);
    over = (value >> bits) != 0;
  endfunction

  job_t fields;  // as they stand in the words
  logic past;    // of the limits
  logic none;    // no rows
  assign none = fields.rows_o == 0 || fields.rows_i == 0 || fields.batch == 0;

  logic norm_layer, norm_beta, slopes, renormalize, pairs;
  logic [ELTWISE_FN_BITS-1:0] fn;
  assign norm_layer  = word_i[NORM_NORM_WORD][NORM_NORM_LSB] == NORM_KIND_LAYER;
  assign norm_beta   = word_i[NORM_USE_BETA_WORD][NORM_USE_BETA_LSB];
  assign slopes      = word_i[SOFTMAX_USE_SLOPES_WORD][SOFTMAX_USE_SLOPES_LSB];
  assign pairs       = word_i[ROPE_FORM_WORD][ROPE_FORM_LSB] == ROPE_FORM_INTERLEAVED;
  assign renormalize = word_i[TOPK_RENORMALIZE_WORD][TOPK_RENORMALIZE_LSB];
  assign fn          = word_i[ELTWISE_FN_WORD][ELTWISE_FN_LSB+:ELTWISE_FN_BITS];

  always_comb begin
    fields        = '0;
    fields.batch  = 12'd1;
    fields.rows_i = 20'd1;
    past         = 1'b0;
    case (opcode_i)
      OP_NORM: begin
        fields.row        = norm_layer ? (norm_beta ? R_LAYER_BETA : R_LAYER) : (norm_beta ? R_RMS_BETA : R_RMS);
        fields.vector0    = word_i[NORM_GAMMA_WORD];
        fields.vector1    = word_i[NORM_BETA_WORD];
        fields.immediate0 = word_i[NORM_INV_N_WORD];
        fields.immediate1 = word_i[NORM_EPS_WORD];
        fields.dim        = 24'(word_i[NORM_DIM_WORD]);
        past             = over(word_i[NORM_DIM_WORD], NORM_DIM_BITS);
      end
      OP_SOFTMAX: begin
        fields.row     = slopes ? R_SOFTMAX_SLOPE : R_SOFTMAX;
        fields.batch   = 12'(word_i[SOFTMAX_BATCH_WORD]);
        fields.src_b   = word_i[SOFTMAX_SRC_B_WORD];
        fields.dst_b   = word_i[SOFTMAX_DST_B_WORD];
        fields.visible = 24'(word_i[SOFTMAX_VISIBLE_WORD]);
        fields.window  = 24'(word_i[SOFTMAX_WINDOW_WORD]);
        fields.first   = word_i[SOFTMAX_RECIP_WORD];
        fields.vector0 = word_i[SOFTMAX_SLOPES_WORD];
        fields.dim     = 24'(word_i[SOFTMAX_WIDTH_WORD]);
        past = over(word_i[SOFTMAX_BATCH_WORD], SOFTMAX_BATCH_BITS) ||
               over(word_i[SOFTMAX_VISIBLE_WORD], SOFTMAX_VISIBLE_BITS) ||
               over(word_i[SOFTMAX_WIDTH_WORD], SOFTMAX_WIDTH_BITS) ||
               over(word_i[SOFTMAX_WINDOW_WORD], SOFTMAX_WINDOW_BITS);
      end
      OP_ROPE: begin
        fields.row      = pairs ? R_PAIRS : R_HALVES;
        fields.rot      = 16'(word_i[ROPE_ROT_WORD]);
        fields.other    = word_i[ROPE_TABLE_WORD];
        fields.other_so = word_i[ROPE_TABLE_SO_WORD];
        fields.dim      = 24'(word_i[ROPE_DIM_WORD]);
        past           = over(word_i[ROPE_DIM_WORD], ROPE_DIM_BITS) || over(word_i[ROPE_ROT_WORD], ROPE_ROT_BITS);
      end
      OP_ACT: begin
        fields.row      = R_ACT;
        fields.act_slot = word_i[ACT_ACT_SLOT_WORD][ACT_ACT_SLOT_LSB+:ACT_ACT_SLOT_BITS];
        fields.dim      = 24'(word_i[ACT_DIM_WORD]);
        past           = over(word_i[ACT_DIM_WORD], ACT_DIM_BITS);
      end
      OP_ELTWISE: begin
        fields.row        = (fn == ELTWISE_FN_ADD) ? R_ADD : (fn == ELTWISE_FN_MUL) ? R_MUL : R_SCALE;
        fields.other      = word_i[ELTWISE_B_WORD];
        fields.other_so   = word_i[ELTWISE_B_SO_WORD];
        fields.other_si   = word_i[ELTWISE_B_SI_WORD];
        fields.immediate0 = word_i[ELTWISE_SCALE_WORD];
        fields.dim        = 24'(word_i[ELTWISE_DIM_WORD]);
        past             = over(word_i[ELTWISE_DIM_WORD], ELTWISE_DIM_BITS);
      end
      OP_ARGMAX: begin
        fields.row    = R_ARGMAX;
        fields.src    = word_i[ARGMAX_SRC_WORD];
        fields.src_so = word_i[ARGMAX_SRC_SO_WORD];
        fields.rows_o = 20'(word_i[ARGMAX_ROWS_O_WORD]);
        fields.dim    = 24'(word_i[ARGMAX_N_WORD]);
        fields.first  = word_i[ARGMAX_DST_WORD];
        past         = over(word_i[ARGMAX_ROWS_O_WORD], ARGMAX_ROWS_O_BITS) || over(word_i[ARGMAX_N_WORD], ARGMAX_N_BITS);
      end
      OP_TOPK: begin
        fields.row    = renormalize ? R_TOPK_SHARE : R_TOPK;
        fields.src    = word_i[TOPK_SRC_WORD];
        fields.src_so = word_i[TOPK_SRC_SO_WORD];
        fields.rows_o = 20'(word_i[TOPK_ROWS_O_WORD]);
        fields.dim    = 24'(word_i[TOPK_N_WORD]);
        fields.k      = 8'(word_i[TOPK_K_WORD]);
        fields.first  = word_i[TOPK_IDS_WORD];
        fields.second = word_i[TOPK_WEIGHTS_WORD];
        past = over(word_i[TOPK_ROWS_O_WORD], TOPK_ROWS_O_BITS) || over(word_i[TOPK_N_WORD], TOPK_N_BITS) ||
               over(word_i[TOPK_K_WORD], TOPK_K_BITS);
      end
      default: begin  // OP_PERMUTE
        fields.row     = R_PERMUTE;
        fields.permute = 1'b1;
        fields.src     = word_i[PERMUTE_SRC_WORD];
        fields.src_so  = word_i[PERMUTE_SRC_SO_WORD];
        fields.src_si  = word_i[PERMUTE_SRC_SI_WORD];
        fields.dst     = word_i[PERMUTE_DST_WORD];
        fields.dst_so  = word_i[PERMUTE_DST_SO_WORD];
        fields.dst_si  = word_i[PERMUTE_DST_SI_WORD];
        fields.rows_o  = 20'(word_i[PERMUTE_ROWS_O_WORD]);
        fields.rows_i  = 20'(word_i[PERMUTE_ROWS_I_WORD]);
        fields.limit   = 20'(word_i[PERMUTE_LIMIT_WORD]);
        fields.vector0 = word_i[PERMUTE_INDEX_WORD];
        fields.dim     = 24'(word_i[PERMUTE_DIM_WORD]);
        past = over(word_i[PERMUTE_ROWS_O_WORD], PERMUTE_ROWS_O_BITS) ||
               over(word_i[PERMUTE_ROWS_I_WORD], PERMUTE_ROWS_I_BITS) ||
               over(word_i[PERMUTE_DIM_WORD], PERMUTE_DIM_BITS) || over(word_i[PERMUTE_LIMIT_WORD], PERMUTE_LIMIT_BITS);
      end
    endcase
    // The commands with two-level rows from word 1 on: the same words in all of them.
    if (opcode_i inside {OP_NORM, OP_SOFTMAX, OP_ROPE, OP_ACT, OP_ELTWISE}) begin
      fields.src    = word_i[NORM_SRC_WORD];
      fields.src_so = word_i[NORM_SRC_SO_WORD];
      fields.src_si = word_i[NORM_SRC_SI_WORD];
      fields.dst    = word_i[NORM_DST_WORD];
      fields.dst_so = word_i[NORM_DST_SO_WORD];
      fields.dst_si = word_i[NORM_DST_SI_WORD];
      fields.rows_o = 20'(word_i[NORM_ROWS_O_WORD]);
      fields.rows_i = 20'(word_i[NORM_ROWS_I_WORD]);
      past = past || over(word_i[NORM_ROWS_O_WORD], NORM_ROWS_O_BITS) || over(word_i[NORM_ROWS_I_WORD], NORM_ROWS_I_BITS);
    end
  end

  // How many rows go in turns: as many as have accumulators, or, where none are needed, as fit a strip.
  localparam int unsigned ROWS = STRIP * LANES / VIRTUAL;  // of accumulators
  localparam int unsigned SUMS = (ROWS >= GROUP) ? $clog2(GROUP) : (ROWS > 1) ? $clog2(ROWS) : 0;
  logic [23:0] span;
  logic [1:0]  fitting, group;
  assign span    = (fields.row == R_HALVES) ? fields.dim >> 1 : fields.dim;
  assign fitting = (span <= 24'(2 * LANES)) ? 2'd3 : (span <= 24'(4 * LANES)) ? 2'd2 :
                   (span <= 24'(8 * LANES)) ? 2'd1 : 2'd0;
  always_comb begin
    case (groups(fields.row))
      MAPS:    group = fitting;
      REDUCES: group = 2'(SUMS);
      default: group = 2'd0;
    endcase
  end

  // Inner rows go in turns. Where there is one of them the outer rows become inner ones (of a softmax with one outer row its
  // row sets), in the same order, unless something that a group shares differs: a table row, the block of a window.
  job_t in_turns;
  logic softmax, rotary, sets;
  assign softmax = fields.row == R_SOFTMAX;
  assign rotary  = fields.row == R_HALVES || fields.row == R_PAIRS;
  assign sets    = softmax && fields.rows_o == 20'd1;
  always_comb begin
    in_turns       = fields;
    in_turns.group = group;
    if (fields.rows_i == 20'd1 && groups(fields.row) != ALONE && !rotary && (sets || fields.window == 0)) begin
      in_turns.rows_i   = sets ? 20'(fields.batch) : fields.rows_o;
      in_turns.rows_o   = 20'd1;
      in_turns.src_si   = sets ? fields.src_b : fields.src_so;
      in_turns.dst_si   = sets ? fields.dst_b : fields.dst_so;
      in_turns.other_si = fields.other_so;
      in_turns.stagger  = softmax && !sets;
      if (sets) in_turns.batch = 12'd1;
    end
  end

  // Limits come first; then what is empty does nothing, whatever else its fields say.
  logic empty, bad;
  always_comb begin
    empty = none || fields.dim == 0;
    bad   = 1'b0;
    case (opcode_i)
      OP_SOFTMAX: begin
        empty = none;
        bad   = fields.visible == 0 || fields.dim == 0;
      end
      OP_ROPE:    bad = fields.rot[0] || 24'(fields.rot) > fields.dim;
      OP_ELTWISE: bad = fn > ELTWISE_FN_SCALE;
      OP_TOPK: begin
        empty = none || fields.dim == 0 || fields.k == 0;
        bad   = 24'(fields.k) > fields.dim;
      end
      default: ;
    endcase
    job_o       = in_turns;
    job_o.bad   = past || (bad && !empty);
    job_o.empty = empty && !past;
  end

endmodule
