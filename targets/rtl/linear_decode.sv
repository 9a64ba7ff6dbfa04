// What a LINEAR command asks for, and whether it may (doc/numerics.md, section 11). `check_i` starts it; `done_o` comes
// CYCLES cycles later, `error_o` then is the error or ERROR_NONE, `nothing_o` says that there is nothing to do. The
// words of the command must be steady; so are the results until the next check.
module linear_decode #(
    parameter int unsigned ROW_UNITS = 2,       // 16 bytes each, of a beat row of the weights
    parameter int unsigned ACTIVATION_ELEMENTS = 8192,
    parameter int unsigned ACCUMULATORS = 4096,
    parameter int unsigned ROWS_MOST = ACTIVATION_ELEMENTS / 32,
    parameter int unsigned SETS = 1,            // blocks of values in a row tile,
    parameter int unsigned MOST_HEADS = 0,      // and heads, log2
    localparam int unsigned TILE = 8 * ROW_UNITS
) (
    input  logic                        clk_i,
    input  logic                        rst_i,
    input  logic                        check_i,
    input  logic [31:0]                 word_i [dlavm_isa_pkg::LINEAR_WORDS],
    input  logic [23:0]                 acc_rows_i,     // shape of the accumulators that are held
    input  logic [23:0]                 acc_n_i,
    output logic                        done_o,
    output logic                        nothing_o,
    output dlavm_isa_pkg::error_e       error_o,
    // what the engine counts with
    output dlavm_formats_pkg::format_t  format_o,
    output logic                        keys_o,
    output logic                        values_o,
    output logic                        bytes_o,        // of an MXINT8 cache
    output logic [23:0]                 rows_o,         // all rows
    output logic [23:0]                 k_blocks_o,
    output logic [23:0]                 n_blocks_o,
    output logic [5:0]                  k_tail_o,       // elements of the last block, 1..32
    output logic [5:0]                  n_tail_o,
    output logic [23:0]                 tiles_o,        // ceil(n / TILE)
    output logic [23:0]                 tile_units_o,   // packed weights: of a row tile, in 16 bytes
    output logic                        pieces_o,       // src is loaded 32 k at a time (activation_load),
    output logic [1:0]                  places_o,       // into 2^places_o places of the activation buffer
    output logic [1:0]                  heads_o,        // of a unit of values, log2
    output logic                        ordered_o       // the cache is fetched in the order of memory (block_order)
);

  import dlavm_isa_pkg::*;
  import dlavm_formats_pkg::*;

  localparam int unsigned CYCLES = 3;

  // fields
  logic [31:0] word0, rows_o_word, rows_i_word, k_word, n_word, batch_word;
  weight_format_e number;
  logic [23:0] k, n;
  logic        acc_in, tiled, packed_weights;
  logic [1:0]  aux_mode;
  assign word0       = word_i[0];
  assign rows_o_word = word_i[LINEAR_ROWS_O_WORD];
  assign rows_i_word = word_i[LINEAR_ROWS_I_WORD];
  assign k_word      = word_i[LINEAR_K_WORD];
  assign n_word      = word_i[LINEAR_N_WORD];
  assign batch_word  = word_i[LINEAR_BATCH_WORD];
  assign number      = weight_format_e'(word0[LINEAR_FORMAT_LSB+:LINEAR_FORMAT_BITS]);
  assign k           = k_word[23:0];
  assign n           = n_word[23:0];
  assign acc_in      = word0[LINEAR_ACC_IN_LSB];
  assign tiled       = acc_in | word0[LINEAR_ACC_OUT_LSB];
  assign aux_mode    = word0[LINEAR_AUX_MODE_LSB+:2];

  assign format_o       = format_of(number);
  assign packed_weights = format_o.packed_weights;
  assign keys_o         = number inside {WEIGHT_FORMAT_KV_K, WEIGHT_FORMAT_KVQ_K};
  assign values_o       = number inside {WEIGHT_FORMAT_KV_V, WEIGHT_FORMAT_KVQ_V};
  assign bytes_o        = number inside {WEIGHT_FORMAT_KVQ_K, WEIGHT_FORMAT_KVQ_V};

  assign k_blocks_o = 24'((25'(k) + 25'd31) >> 5);
  assign n_blocks_o = 24'((25'(n) + 25'd31) >> 5);
  assign k_tail_o   = {1'b0, k[4:0] - 5'd1} + 6'd1;
  assign n_tail_o   = {1'b0, n[4:0] - 5'd1} + 6'd1;
  assign tiles_o    = 24'((25'(n) + 25'(TILE - 1)) / 25'(TILE));

  // 1: products of two fields. 2: of three. 3: verdict.
  logic [CYCLES-1:0] valid_q;
  logic [31:0]       rows_q;
  logic [23:0]       groups, beats;
  logic [56:0]       elements_q, outputs_q, padded_outputs_q;
  always_comb begin
    groups = k_blocks_o;
    if (format_o.group_blocks[1]) groups = (k_blocks_o + 24'd1) >> 1;
    if (format_o.group_blocks[2]) groups = (k_blocks_o + 24'd3) >> 2;
    case (format_o.element)
      ELEMENT_INT4, ELEMENT_E2M1: beats = k_blocks_o << 3;
      ELEMENT_E2M3: beats = (k_blocks_o << 3) + (k_blocks_o << 2);
      default: beats = k_blocks_o << 4;
    endcase
    beats = beats + (format_o.e8m0 ? (groups + 24'd1) >> 1 : groups);
    if (format_o.zero) beats = beats + ((groups + 24'd1) >> 1);
  end

  always_ff @(posedge clk_i) begin
    valid_q          <= rst_i ? '0 : {valid_q[CYCLES-2:0], check_i};
    rows_q           <= 32'(rows_o_word[19:0]) * 32'(rows_i_word[11:0]);
    tile_units_o     <= 24'(beats * 24'(ROW_UNITS));
    elements_q       <= 57'(rows_q) * 57'({k_blocks_o, 5'd0});
    padded_outputs_q <= 57'(rows_q) * 57'({n_blocks_o, 5'd0});
    outputs_q        <= 57'(rows_q) * 57'(n);
  end
  assign done_o = valid_q[CYCLES-1];

  // As many batches of src as the activation buffer holds. One that would leave no room for a second has to, if its k
  // may not come in pieces.
  assign pieces_o = values_o & (elements_q > 57'(ACTIVATION_ELEMENTS / 2));
  always_comb begin
    places_o = 2'd0;
    for (int i = 1; i < 4; i++) if (elements_q <= 57'(ACTIVATION_ELEMENTS >> i)) places_o = 2'(i);
    if (pieces_o) places_o = 2'd1;
  end

  // Heads share a unit of values where there is room for their blocks, their rows of P and the scales of these.
  always_comb begin
    heads_o = 2'd0;
    for (int i = 1; i <= int'(MOST_HEADS); i++)
      if (values_o && !pieces_o && 2'(i) <= places_o && n_blocks_o <= 24'(SETS >> i) && (rows_q << i) <= ROWS_MOST)
        heads_o = 2'(i);
  end
  assign ordered_o = (SETS > 1) & ~bytes_o & ((keys_o & (k_blocks_o <= 24'(matrix_pkg::TOGETHER))) | (heads_o != 2'd0));
  assign rows_o = rows_q[23:0];

  // A count past its field's width; a number that means nothing.
  logic bad_field, misplaced, too_large, bad_shape;
  assign bad_field = |rows_o_word[31:LINEAR_ROWS_O_BITS] | |rows_i_word[31:LINEAR_ROWS_I_BITS] |
      |k_word[31:LINEAR_K_BITS] | |n_word[31:LINEAR_N_BITS] | |batch_word[31:LINEAR_BATCH_BITS] |
      ~(packed_weights | keys_o | values_o) | ~(aux_mode inside {AUX_MODE_NONE, AUX_MODE_ADD, AUX_MODE_MUL});

  // Packed weights start at beat rows.
  function automatic logic inside_row(input logic [31:0] unit);
    inside_row = (unit % 32'(ROW_UNITS)) != 0;
  endfunction
  assign misplaced = packed_weights & (inside_row(word_i[LINEAR_WGT_WORD]) | inside_row(word_i[LINEAR_WGT_TILE_WORD]) |
      (inside_row(word_i[LINEAR_WGT_B_WORD]) & (batch_word[11:0] > 12'd1)));

  always_comb begin
    if (values_o) too_large = padded_outputs_q > 57'(ACCUMULATORS);
    else too_large = (elements_q > 57'(ACTIVATION_ELEMENTS)) | (tiled & (outputs_q > 57'(ACCUMULATORS)));
    too_large = too_large | (rows_q > ROWS_MOST);
  end
  assign bad_shape = acc_in & ((32'(acc_rows_i) != rows_q) | (acc_n_i != n));

  assign nothing_o = (rows_q == 0) | (n == 0) | (batch_word[11:0] == 0);
  always_comb begin
    error_o = ERROR_NONE;
    if (bad_field) error_o = ERROR_FIELD_RANGE;
    else if (nothing_o) error_o = ERROR_NONE;
    else if (k == 0 || (tiled && (batch_word[11:0] != 12'd1 || !packed_weights))) error_o = ERROR_FIELD_RANGE;
    else if (aux_mode != AUX_MODE_NONE && batch_word[11:0] != 12'd1) error_o = ERROR_FIELD_RANGE;
    else if (too_large) error_o = ERROR_BUFFER;
    else if (bad_shape || misplaced) error_o = ERROR_FIELD_RANGE;
  end

endmodule
