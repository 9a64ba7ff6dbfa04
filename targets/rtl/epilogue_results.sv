// Results of blocks (a pair of tokens each) on their way from the quads to the lanes of the epilogue: they come row after row
// of all quads at once, and leave column after column of a token, each lane its own four rows at a time,
// RESULT_LATENCY cycles after their step: one of the memories, one behind the choice among those of a lane.
module epilogue_results #(
    parameter int unsigned QUADS = 2,
    parameter int unsigned PORT_BYTES = 16,
    parameter int unsigned HALVES = 2,
    parameter int unsigned LANES = 2,
    parameter int unsigned BLOCKS = 4,  // a power of two
    localparam int unsigned ROW_WIDTH = $clog2(4 * HALVES),
    localparam int unsigned FOURS = HALVES * QUADS,  // of a tile's rows
    localparam int unsigned STEP_WIDTH = $clog2(4 * FOURS / LANES)
) (
    input  logic                        clk_i,
    input  logic                        rst_i,
    input  logic                        result_i,
    input  logic [ROW_WIDTH-1:0]        result_row_i,  // half and row of every quad
    input  logic [QUADS-1:0][1:0][31:0] acc_i,         // by quad, token
    output logic                        any_o,         // a block is complete,
    input  logic                        free_i,        // and is no longer wanted
    input  logic [STEP_WIDTH-1:0]       step_i,        // rows 4 * lane + row of every 4 * LANES
    input  logic                        token_i,
    output logic [LANES-1:0][31:0]      acc_o          // of the step RESULT_LATENCY cycles ago
);

  localparam int unsigned GROUPS = FOURS / LANES;
  localparam int unsigned GROUP_WIDTH = mem_pkg::index_width(GROUPS);
  localparam int unsigned BLOCK_WIDTH = $clog2(BLOCKS);

  logic [BLOCK_WIDTH-1:0] block_in_q, block_out_q;
  logic [BLOCK_WIDTH:0]   blocks_q;
  logic                   last, half;
  assign last  = result_i && result_row_i == '1;
  assign half  = (HALVES == 2) & result_row_i[ROW_WIDTH-1];
  assign any_o = blocks_q != 0;
  always_ff @(posedge clk_i) begin
    if (last) block_in_q <= block_in_q + 1'b1;
    if (free_i) block_out_q <= block_out_q + 1'b1;
    blocks_q <= blocks_q + (BLOCK_WIDTH + 1)'(last) - (BLOCK_WIDTH + 1)'(free_i);
    if (rst_i) begin
      block_in_q  <= '0;
      block_out_q <= '0;
      blocks_q    <= '0;
    end
  end

  // By four rows of the tile.
  logic [FOURS-1:0][1:0][31:0] four_q;
  for (genvar u = 0; u < int'(QUADS); u++) begin : g_quad
    for (genvar h = 0; h < int'(HALVES); h++) begin : g_half
      localparam int unsigned FOUR = matrix_pkg::first_row(u, h, QUADS, HALVES, PORT_BYTES) / 4;
      logic [1:0][31:0] rows [4*BLOCKS];
      always_ff @(posedge clk_i) begin
        if (result_i && half == 1'(h)) rows[{block_in_q, result_row_i[1:0]}] <= acc_i[u];
        four_q[FOUR] <= rows[{block_out_q, step_i[1:0]}];
      end
    end
  end

  logic [GROUP_WIDTH-1:0] group_q;
  logic                   token_q;
  always_ff @(posedge clk_i) begin
    group_q <= (GROUPS > 1) ? GROUP_WIDTH'(step_i >> 2) : '0;
    token_q <= token_i;
  end
  for (genvar l = 0; l < int'(LANES); l++) begin : g_lane
    logic [GROUPS-1:0][31:0] choice;
    for (genvar g = 0; g < int'(GROUPS); g++) begin : g_group
      assign choice[g] = four_q[g*LANES+l][token_q];
    end
    always_ff @(posedge clk_i) acc_o[l] <= choice[group_q];
  end

endmodule
