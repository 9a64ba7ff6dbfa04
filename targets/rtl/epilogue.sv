// From block results to rows of dst: for each batch and row tile, token after token, the tile's columns in beats, and
// out with a strobe for each byte. Where several heads share a unit of values, a row of the tile is one of each of them,
// one after the other. LANES columns are in work at once, four rows of as many quads one after the other.
//
// Results of RESULT_BLOCKS blocks (a pair of tokens each) are held; `result_free_o` gives room back. Operands come in
// the order of epilogue_fetch.
module epilogue #(
    parameter int unsigned UNITS = 2,          // of a beat of operands and of dst, at most a beat row of weights
    parameter int unsigned QUADS = 2,
    parameter int unsigned PORT_BYTES = 16,
    parameter int unsigned HALVES = 2,
    parameter int unsigned LANES = 2,          // at most UNITS
    parameter int unsigned ROWS_MOST = 256,
    parameter int unsigned RESULT_BLOCKS = 4,
    localparam int unsigned ROW_WIDTH = $clog2(4 * HALVES),
    localparam int unsigned TILE = 4 * HALVES * QUADS  // columns
) (
    input  logic                        clk_i,
    input  logic                        rst_i,
    // a command; steady until the next start
    input  logic                        start_i,
    input  logic                        use_scale_i,
    input  logic                        use_row_scale_i,
    input  logic                        use_bias_i,
    input  logic                        use_act_i,
    input  logic                        mul_aux_i,
    input  logic                        add_aux_i,
    input  logic [31:0]                 scale_i,
    input  logic [31:0]                 dst_i,        // addresses in units of 16 bytes
    input  logic [31:0]                 dst_so_i,
    input  logic [31:0]                 dst_si_i,
    input  logic [31:0]                 dst_b_i,
    input  logic [11:0]                 rows_i_i,     // inner rows
    input  logic [23:0]                 rows_all_i,   // all rows
    input  logic [23:0]                 n_i,
    input  logic [23:0]                 tiles_i,
    input  logic [11:0]                 batch_i,
    input  logic [1:0]                  heads_i,      // values: of a unit, log2
    output logic                        idle_o,       // and every byte is written
    // results
    input  logic                        result_i,
    input  logic [ROW_WIDTH-1:0]        result_row_i,
    input  logic [QUADS-1:0][1:0][31:0] acc_i,        // by quad, token
    output logic                        result_free_o,
    // operands: read client
    input  logic                        valid_i,
    output logic                        ready_o,
    input  logic [UNITS*128-1:0]        data_i,
    input  logic                        last_i,
    // activation tables
    output logic [LANES-1:0][10:0]      act_index_o,
    input  logic [LANES-1:0][63:0]      act_pair_i,
    // write client
    output logic                        req_valid_o,
    input  logic                        req_ready_i,
    output logic [31:0]                 req_unit_o,
    output logic [23:0]                 req_units_o,
    output logic                        valid_o,
    input  logic                        ready_i,
    output logic [UNITS*128-1:0]        data_o,
    output logic [UNITS*16-1:0]         strb_o,
    input  logic                        written_i     // nothing that was handed over is outstanding
);

  localparam int unsigned COLUMNS = 8 * UNITS;      // of a beat
  localparam int unsigned PIECES = TILE / COLUMNS;  // beats of a tile's row
  localparam int unsigned WORDS = 4 * UNITS;        // fp32 of a beat
  localparam int unsigned SCALE_BEATS = ROWS_MOST / WORDS + 1;
  localparam int unsigned BEATS = 8;                // of rows under way or waiting for memory
  localparam int unsigned STEPS = COLUMNS / LANES;  // of a beat
  localparam int unsigned STEP_WIDTH = $clog2(STEPS);
  localparam int unsigned PIECE_WIDTH = mem_pkg::index_width(PIECES);
  localparam int unsigned COLUMN_WIDTH = $clog2(COLUMNS + 1);
  localparam int unsigned LATENCY =
      matrix_pkg::RESULT_LATENCY + 3 * fp_pkg::MUL_LATENCY + 2 * fp_pkg::ADD_LATENCY + 2 * fp_pkg::HALF_LATENCY +
      fp_pkg::ACT_LATENCY;

  // Order
  typedef enum logic [2:0] {IDLE, SCALES, BIAS, ROW, RUN} state_e;
  state_e      state_q;
  logic [11:0] batch_q;
  logic [23:0] tile_q, row_q, left_q, left_piece_q;  // columns from the tile's, from the beat's first one on
  logic [31:0] base_q, column_q, scales_q;
  logic [PIECE_WIDTH-1:0] piece_q, head_piece_q;     // beat of the tile's row; of the head's
  logic [2:0]  head_q, heads;
  logic [31:0] head_unit_q;                          // from the unit's first head to this one: dst,
  logic [31:0] head_scale_q;                         // scales
  logic [STEP_WIDTH-1:0]  step_q;
  logic [3:0]  room_q;     // beats that may still be started
  logic        row_last, tile_last, batch_last, piece_last, use_aux, go, piece_done, head_done, row_done, results;
  logic [31:0] row_unit;
  assign use_aux       = mul_aux_i | add_aux_i;
  assign row_last      = (row_q + 24'd1 == rows_all_i);
  assign tile_last     = (tile_q + 24'd1 == tiles_i);
  assign heads         = matrix_pkg::heads_here(heads_i, batch_i - batch_q);
  assign batch_last    = (batch_q + 12'(heads) == batch_i);
  assign piece_last    = (piece_q == PIECE_WIDTH'(PIECES - 1)) | (left_piece_q <= 24'(COLUMNS));
  assign go            = (state_q == ROW) & results & (room_q != 0) & (~use_aux | valid_i);
  assign piece_done    = (state_q == RUN) & (step_q == '1);
  assign head_done     = piece_done & piece_last;
  assign row_done      = head_done & (head_q + 3'd1 == heads);
  assign result_free_o = row_done & (row_q[0] | row_last);

  row_walker u_dst (
      .clk_i, .start_i(state_q == BIAS), .next_i(row_done), .base_i(base_q + column_q), .so_i(dst_so_i),
      .si_i(dst_si_i), .rows_i_i, .address_o(row_unit));

  always_comb begin
    case (state_q)
      SCALES: ready_o = use_row_scale_i;
      BIAS: ready_o = use_bias_i;
      default: ready_o = go & use_aux;
    endcase
  end

  logic beat_free;
  always_ff @(posedge clk_i) begin
    case (state_q)
      IDLE: ;
      SCALES: if (!use_row_scale_i || (valid_i && last_i)) state_q <= BIAS;
      BIAS: begin
        left_piece_q <= left_q;
        if (!use_bias_i || (valid_i && last_i)) state_q <= ROW;
      end
      ROW: if (go) state_q <= RUN;
      default: begin
        step_q <= step_q + 1'b1;
        if (piece_done) begin
          state_q      <= ROW;
          piece_q      <= piece_q + 1'b1;
          head_piece_q <= head_piece_q + 1'b1;
          left_piece_q <= left_piece_q - 24'(COLUMNS);
        end
        if (head_done) begin
          piece_q      <= PIECE_WIDTH'((32'(head_q) + 32'd1) * (PIECES >> heads_i));
          head_piece_q <= '0;
          left_piece_q <= left_q;
          head_q       <= head_q + 3'd1;
          head_unit_q  <= head_unit_q + dst_b_i;
          head_scale_q <= head_scale_q + 32'(rows_all_i);
        end
        if (row_done) begin
          piece_q      <= '0;
          head_q       <= '0;
          head_unit_q  <= '0;
          head_scale_q <= '0;
          row_q <= row_q + 24'd1;
          if (row_last) begin
            row_q    <= '0;
            tile_q   <= tile_q + 24'd1;
            left_q   <= left_q - 24'(TILE);
            column_q <= column_q + 32'(TILE / 8);
            state_q  <= BIAS;
            if (tile_last) begin
              tile_q   <= '0;
              left_q   <= n_i;
              column_q <= '0;
              batch_q  <= batch_q + 12'(heads);
              base_q   <= base_q + head_unit_q + dst_b_i;
              scales_q <= scales_q + head_scale_q + 32'(rows_all_i);
              state_q  <= batch_last ? IDLE : SCALES;
            end
          end
        end
      end
    endcase
    room_q <= room_q - 4'(go) + 4'(beat_free);
    if (start_i) begin
      state_q  <= SCALES;
      batch_q  <= '0;
      tile_q   <= '0;
      row_q    <= '0;
      piece_q  <= '0;
      head_piece_q <= '0;
      head_q   <= '0;
      head_unit_q  <= '0;
      head_scale_q <= '0;
      step_q   <= '0;
      left_q   <= n_i;
      base_q   <= dst_i;
      column_q <= '0;
      scales_q <= '0;
    end
    if (rst_i) begin
      state_q <= IDLE;
      room_q  <= 4'(BEATS);
    end
  end

  // Operands. The rows' scales of a batch begin anywhere in their first unit.
  localparam int unsigned SCALE_WIDTH = $clog2(SCALE_BEATS);
  logic [WORDS-1:0][31:0]  scales [SCALE_BEATS];
  logic [SCALE_WIDTH-1:0]  scale_in_q;
  logic [31:0]             scale_at, row_scale_q;
  logic [COLUMNS-1:0][15:0] bias [PIECES], bias_q, aux_q;
  logic [PIECE_WIDTH-1:0]  bias_in_q;
  assign scale_at = 32'(row_q) + 32'(scales_q[1:0]) + head_scale_q;
  always_ff @(posedge clk_i) begin
    if (state_q != SCALES) scale_in_q <= '0;
    else if (valid_i && use_row_scale_i) begin
      scales[scale_in_q] <= data_i;
      scale_in_q         <= scale_in_q + 1'b1;
    end
    if (state_q != BIAS) bias_in_q <= '0;
    else if (valid_i && use_bias_i) begin
      bias[bias_in_q] <= data_i;
      bias_in_q       <= bias_in_q + 1'b1;
    end
    if (go) begin
      bias_q      <= bias[head_piece_q];
      aux_q       <= data_i;
      row_scale_q <= scales[SCALE_WIDTH'(scale_at / WORDS)][($clog2(WORDS))'(scale_at)];
    end
  end

  // Lanes
  logic [COLUMNS-1:0][15:0]  beat_q;
  logic [STEP_WIDTH-1:0]     step, operand_q;
  logic                      run, beat_done_q;
  logic [LANES-1:0][31:0]    acc;
  logic [LANES-1:0][15:0]    y;
  epilogue_results #(.QUADS(QUADS), .PORT_BYTES(PORT_BYTES), .HALVES(HALVES), .LANES(LANES),
                     .BLOCKS(RESULT_BLOCKS)) u_results (
      .clk_i, .rst_i, .result_i, .result_row_i, .acc_i, .any_o(results), .free_i(result_free_o),
      .step_i(($clog2(TILE/LANES))'({piece_q, step_q})), .token_i(row_q[0]), .acc_o(acc));
  delay_line #(.WIDTH(STEP_WIDTH), .CYCLES(LATENCY)) u_step (.clk_i, .value_i(step_q), .value_o(step));
  logic [LATENCY-1:0] run_q;
  always_ff @(posedge clk_i) begin
    run_q     <= rst_i ? '0 : {run_q[LATENCY-2:0], state_q == RUN};
    operand_q <= step_q;
  end
  assign run = run_q[LATENCY-1];

  for (genvar l = 0; l < int'(LANES); l++) begin : g_lane
    localparam int unsigned WIDTH = $clog2(COLUMNS);
    logic [WIDTH-1:0] column, column_out;
    assign column     = WIDTH'(operand_q[STEP_WIDTH-1:2]) * WIDTH'(4 * LANES) + WIDTH'(4 * l) + WIDTH'(operand_q[1:0]);
    assign column_out = WIDTH'(step[STEP_WIDTH-1:2]) * WIDTH'(4 * LANES) + WIDTH'(4 * l) + WIDTH'(step[1:0]);
    epilogue_lane u_lane (
        .clk_i, .use_scale_i, .use_row_scale_i, .use_bias_i, .use_act_i, .mul_aux_i, .add_aux_i, .scale_i,
        .acc_i(acc[l]), .row_scale_i(row_scale_q), .bias_i(bias_q[column]), .aux_i(aux_q[column]),
        .act_index_o(act_index_o[l]), .act_pair_i(act_pair_i[l]), .y_o(y[l]));
    always_ff @(posedge clk_i) if (run) beat_q[column_out] <= y[l];
  end
  always_ff @(posedge clk_i) beat_done_q <= ~rst_i & run & (step == '1);

  // Beats on their way out: where to, how many columns; then the columns.
  localparam int unsigned BEAT_WIDTH = $clog2(BEATS);
  logic [31:0]             units [BEATS];
  logic [COLUMN_WIDTH-1:0] counts [BEATS], req_count, data_count;
  logic [COLUMNS-1:0][15:0] beats [BEATS];
  logic [BEAT_WIDTH-1:0]   place_q, ready_q, req_q, data_q;
  logic [BEAT_WIDTH:0]     unasked_q, unsent_q;  // beats that are ready and not requested, requested and not sent
  always_ff @(posedge clk_i) begin
    if (go) begin
      units[place_q]  <= row_unit + head_unit_q + 32'(head_piece_q) * UNITS;
      counts[place_q] <= (left_piece_q > 24'(COLUMNS)) ? COLUMN_WIDTH'(COLUMNS) : COLUMN_WIDTH'(left_piece_q);
      place_q         <= place_q + 1'b1;
    end
    if (beat_done_q) begin
      beats[ready_q] <= beat_q;
      ready_q        <= ready_q + 1'b1;
    end
    if (req_valid_o && req_ready_i) req_q <= req_q + 1'b1;
    if (beat_free) data_q <= data_q + 1'b1;
    unasked_q <= unasked_q + (BEAT_WIDTH + 1)'(beat_done_q) - (BEAT_WIDTH + 1)'(req_valid_o && req_ready_i);
    unsent_q  <= unsent_q + (BEAT_WIDTH + 1)'(req_valid_o && req_ready_i) - (BEAT_WIDTH + 1)'(beat_free);
    if (rst_i) begin
      place_q   <= '0;
      ready_q   <= '0;
      req_q     <= '0;
      data_q    <= '0;
      unasked_q <= '0;
      unsent_q  <= '0;
    end
  end
  assign req_valid_o = (unasked_q != 0);
  assign req_unit_o  = units[req_q];
  assign req_count   = counts[req_q];
  assign req_units_o = 24'((24'(req_count) + 24'd7) >> 3);
  assign valid_o     = (unsent_q != 0);
  assign data_o      = beats[data_q];
  assign data_count  = counts[data_q];
  assign beat_free   = valid_o & ready_i;
  always_comb for (int i = 0; i < int'(COLUMNS); i++) strb_o[2*i+:2] = {2{COLUMN_WIDTH'(i) < data_count}};

  assign idle_o = (state_q == IDLE) & (room_q == 4'(BEATS)) & written_i;

endmodule
