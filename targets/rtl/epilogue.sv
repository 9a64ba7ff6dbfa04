// From block results to rows of dst: for each batch and row tile, token after token, a beat of columns through a lane a
// quad, and out with a strobe for each byte.
//
// Results of RESULT_BLOCKS blocks (a pair of tokens each) are held; `result_free_o` gives room back. Operands come in
// the order of epilogue_fetch.
module epilogue #(
    parameter int unsigned UNITS = 2,
    parameter int unsigned PORT_BYTES = 16,
    parameter int unsigned ROWS_MAX = 256,
    parameter int unsigned RESULT_BLOCKS = 4,
    localparam int unsigned TILE = 8 * UNITS  // columns; a beat of fp16
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
    output logic                        idle_o,       // and every byte is written
    // results
    input  logic                        result_i,
    input  logic [2:0]                  result_row_i,
    input  logic [UNITS-1:0][1:0][31:0] acc_i,        // by quad, token
    output logic                        result_free_o,
    // operands: read client
    input  logic                        valid_i,
    output logic                        ready_o,
    input  logic [UNITS*128-1:0]        data_i,
    input  logic                        last_i,
    // activation tables
    output logic [UNITS-1:0][10:0]      act_index_o,
    input  logic [UNITS-1:0][63:0]      act_pair_i,
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

  localparam int unsigned QUADS = PORT_BYTES / 16;  // of a channel
  localparam int unsigned WORDS = 4 * UNITS;        // fp32 of a beat
  localparam int unsigned SCALE_BEATS = ROWS_MAX / WORDS + 1;
  localparam int unsigned BEATS = 8;                // of rows under way or waiting for memory
  localparam int unsigned LATENCY =
      3 * fp_pkg::MUL_LATENCY + 2 * fp_pkg::ADD_LATENCY + 2 * fp_pkg::HALF_LATENCY + fp_pkg::ACT_LATENCY;

  // Results wait for their turn.
  localparam int unsigned BLOCK_WIDTH = $clog2(RESULT_BLOCKS);
  logic [BLOCK_WIDTH-1:0]      block_in_q, block_out_q;
  logic [BLOCK_WIDTH:0]        blocks_q;
  logic [UNITS-1:0][1:0][31:0] results [8*RESULT_BLOCKS], result;
  always_ff @(posedge clk_i) begin
    if (result_i) results[{block_in_q, result_row_i}] <= acc_i;
    if (result_i && result_row_i == 3'd7) block_in_q <= block_in_q + 1'b1;
    if (result_free_o) block_out_q <= block_out_q + 1'b1;
    blocks_q <= blocks_q + (BLOCK_WIDTH + 1)'(result_i && result_row_i == 3'd7) - (BLOCK_WIDTH + 1)'(result_free_o);
    if (rst_i) begin
      block_in_q  <= '0;
      block_out_q <= '0;
      blocks_q    <= '0;
    end
  end

  // Order
  typedef enum logic [2:0] {IDLE, SCALES, BIAS, ROW, RUN} state_e;
  state_e      state_q;
  logic [11:0] batch_q;
  logic [23:0] tile_q, row_q, left_q;
  logic [31:0] base_q, column_q, scales_q;
  logic [2:0]  line_q;
  logic [3:0]  room_q;     // beats that may still be started
  logic [$clog2(TILE+1)-1:0] columns;
  logic        row_last, tile_last, batch_last, use_aux, go, row_done;
  logic [31:0] row_unit;
  assign use_aux       = mul_aux_i | add_aux_i;
  assign row_last      = (row_q + 24'd1 == rows_all_i);
  assign tile_last     = (tile_q + 24'd1 == tiles_i);
  assign batch_last    = (batch_q + 12'd1 == batch_i);
  assign columns       = (left_q > 24'(TILE)) ? ($clog2(TILE + 1))'(TILE) : ($clog2(TILE + 1))'(left_q);
  assign go            = (state_q == ROW) & (blocks_q != 0) & (room_q != 0) & (~use_aux | valid_i);
  assign row_done      = (state_q == RUN) & (line_q == 3'd7);
  assign result_free_o = row_done & (row_q[0] | row_last);

  row_walker u_dst (
      .clk_i, .start_i(state_q == BIAS), .next_i(go), .base_i(base_q + column_q), .so_i(dst_so_i), .si_i(dst_si_i),
      .rows_i_i, .address_o(row_unit));

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
      BIAS: if (!use_bias_i || valid_i) state_q <= ROW;
      ROW: if (go) state_q <= RUN;
      default: begin
        line_q <= line_q + 3'd1;
        if (row_done) begin
          row_q   <= row_q + 24'd1;
          state_q <= ROW;
          if (row_last) begin
            row_q    <= '0;
            tile_q   <= tile_q + 24'd1;
            left_q   <= left_q - 24'(TILE);
            column_q <= column_q + 32'(UNITS);
            state_q  <= BIAS;
            if (tile_last) begin
              tile_q   <= '0;
              left_q   <= n_i;
              column_q <= '0;
              batch_q  <= batch_q + 12'd1;
              base_q   <= base_q + dst_b_i;
              scales_q <= scales_q + 32'(rows_all_i);
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
      line_q   <= '0;
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
  logic [WORDS-1:0][31:0] scales [SCALE_BEATS];
  logic [SCALE_WIDTH-1:0] scale_in_q;
  logic [31:0]            scale_at, row_scale_q;
  logic [TILE-1:0][15:0]  bias_q, aux_q;
  assign scale_at = 32'(row_q) + 32'(scales_q[1:0]);
  always_ff @(posedge clk_i) begin
    if (state_q != SCALES) scale_in_q <= '0;
    else if (valid_i && use_row_scale_i) begin
      scales[scale_in_q] <= data_i;
      scale_in_q         <= scale_in_q + 1'b1;
    end
    if (state_q == BIAS) bias_q <= data_i;
    if (go) begin
      aux_q       <= data_i;
      row_scale_q <= scales[SCALE_WIDTH'(scale_at / WORDS)][($clog2(WORDS))'(scale_at)];
    end
  end

  // Lanes
  logic [TILE-1:0][15:0] beat_q;
  logic [2:0]            line;
  logic                  run, beat_done_q;
  logic [UNITS-1:0][15:0] y;
  assign result = results[{block_out_q, line_q}];
  delay_line #(.WIDTH(3), .CYCLES(LATENCY)) u_line (.clk_i, .value_i(line_q), .value_o(line));
  logic [LATENCY-1:0] run_q;
  always_ff @(posedge clk_i) run_q <= rst_i ? '0 : {run_q[LATENCY-2:0], state_q == RUN};
  assign run = run_q[LATENCY-1];

  for (genvar u = 0; u < int'(UNITS); u++) begin : g_lane
    // the column of a quad's row
    localparam int unsigned FIRST = (u / QUADS) * PORT_BYTES / 2 + (u % QUADS) * 4;
    localparam int unsigned WIDTH = $clog2(TILE);
    logic [WIDTH-1:0] column, column_out;
    assign column     = WIDTH'(FIRST) + WIDTH'(line_q[1:0]) + (line_q[2] ? WIDTH'(PORT_BYTES / 4) : '0);
    assign column_out = WIDTH'(FIRST) + WIDTH'(line[1:0]) + (line[2] ? WIDTH'(PORT_BYTES / 4) : '0);
    epilogue_lane u_lane (
        .clk_i, .use_scale_i, .use_row_scale_i, .use_bias_i, .use_act_i, .mul_aux_i, .add_aux_i, .scale_i,
        .acc_i(result[u][row_q[0]]), .row_scale_i(row_scale_q), .bias_i(bias_q[column]), .aux_i(aux_q[column]),
        .act_index_o(act_index_o[u]), .act_pair_i(act_pair_i[u]), .y_o(y[u]));
    always_ff @(posedge clk_i) if (run) beat_q[column_out] <= y[u];
  end
  always_ff @(posedge clk_i) beat_done_q <= ~rst_i & run & (line == 3'd7);

  // Rows on their way out: where to, how many columns; then the columns.
  localparam int unsigned BEAT_WIDTH = $clog2(BEATS);
  localparam int unsigned COLUMN_WIDTH = $clog2(TILE + 1);
  logic [31:0]             units [BEATS];
  logic [COLUMN_WIDTH-1:0] counts [BEATS], req_count, data_count;
  logic [TILE-1:0][15:0]   beats [BEATS];
  logic [BEAT_WIDTH-1:0]   place_q, ready_q, req_q, data_q;
  logic [BEAT_WIDTH:0]     unasked_q, unsent_q;  // beats that are ready and not requested, requested and not sent
  always_ff @(posedge clk_i) begin
    if (go) begin
      units[place_q]  <= row_unit;
      counts[place_q] <= columns;
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
  always_comb for (int i = 0; i < int'(TILE); i++) strb_o[2*i+:2] = {2{COLUMN_WIDTH'(i) < data_count}};

  assign idle_o = (state_q == IDLE) & (room_q == 4'(BEATS)) & written_i;

endmodule
