// Requests of the epilogue's operands, in the order in which it takes them: for each batch, or all heads of a unit of values,
// the rows' scales, for each
// row tile the bias and, row after row, aux. What is not used is not requested. A bias or aux request is a tile's columns.
module epilogue_fetch #(
    parameter int unsigned TILE = 16  // columns
) (
    input  logic        clk_i,
    input  logic        rst_i,
    // a command; steady until the next start
    input  logic        start_i,
    input  logic        use_row_scale_i,
    input  logic        use_bias_i,
    input  logic        use_aux_i,
    input  logic [31:0] row_scale_i,   // addresses in units of 16 bytes
    input  logic [31:0] bias_i,
    input  logic [31:0] aux_i,
    input  logic [31:0] aux_so_i,
    input  logic [31:0] aux_si_i,
    input  logic [11:0] rows_i_i,      // inner rows
    input  logic [23:0] rows_all_i,    // all rows
    input  logic [23:0] n_i,
    input  logic [23:0] tiles_i,
    input  logic [11:0] batch_i,
    input  logic [1:0]  heads_i,       // values: of a unit, log2
    output logic        idle_o,
    output logic        req_valid_o,
    input  logic        req_ready_i,
    output logic [31:0] req_unit_o,
    output logic [23:0] req_units_o
);

  typedef enum logic [1:0] {IDLE, SCALES, BIAS, AUX} state_e;
  state_e      state_q;
  logic [11:0] batch_q;
  logic [23:0] tile_q, row_q, left_q, tile_units;
  logic [31:0] column_q;    // units from the first column to the tile's
  logic [31:0] scales_q;    // rows of the batches before
  logic        wanted, done, row_last, tile_last, batch_last, tile_done;
  logic [31:0] aux_unit;
  logic [2:0]  heads;
  logic [23:0] scales;      // fp32

  assign heads      = matrix_pkg::heads_here(heads_i, batch_i - batch_q);
  assign scales     = 24'(rows_all_i * 24'(heads));
  assign row_last   = (row_q + 24'd1 == rows_all_i);
  assign tile_last  = (tile_q + 24'd1 == tiles_i);
  assign batch_last = (batch_q + 12'(heads) == batch_i);
  assign tile_units = (left_q > 24'(TILE)) ? 24'(TILE / 8) : 24'((left_q + 24'd7) >> 3);

  // fp32 rows of a batch need not begin with a unit
  always_comb begin
    case (state_q)
      SCALES: begin
        wanted      = use_row_scale_i;
        req_unit_o  = row_scale_i + (scales_q >> 2);
        req_units_o = 24'((24'(scales_q[1:0]) + scales + 24'd3) >> 2);
      end
      BIAS: begin
        wanted      = use_bias_i;
        req_unit_o  = bias_i + column_q;
        req_units_o = tile_units;
      end
      default: begin
        wanted      = use_aux_i & (state_q == AUX);
        req_unit_o  = aux_unit;
        req_units_o = tile_units;
      end
    endcase
  end
  assign req_valid_o = wanted;
  assign done        = ~wanted | req_ready_i;
  assign tile_done   = (state_q == AUX) & done & (row_last | ~use_aux_i);

  row_walker u_aux (
      .clk_i, .start_i(state_q == BIAS), .next_i(state_q == AUX && done), .base_i(aux_i + column_q), .so_i(aux_so_i),
      .si_i(aux_si_i), .rows_i_i, .address_o(aux_unit));

  always_ff @(posedge clk_i) begin
    case (state_q)
      IDLE: ;
      SCALES: if (done) state_q <= BIAS;
      BIAS: if (done) state_q <= AUX;
      default:
      if (tile_done) begin
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
          scales_q <= scales_q + 32'(scales);
          state_q  <= batch_last ? IDLE : SCALES;
        end
      end else if (done) begin
        row_q <= row_q + 24'd1;
      end
    endcase
    if (start_i) begin
      state_q  <= (use_row_scale_i | use_bias_i | use_aux_i) ? SCALES : IDLE;
      batch_q  <= '0;
      tile_q   <= '0;
      row_q    <= '0;
      left_q   <= n_i;
      column_q <= '0;
      scales_q <= '0;
    end
    if (rst_i) state_q <= IDLE;
  end
  assign idle_o = (state_q == IDLE);

endmodule
