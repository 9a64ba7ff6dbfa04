// A quad for each 16 bytes of a beat, all in step, and what counts for them. Operands and units go in, block results
// come out: RESULT columns a quad, row after row.
module matrix_array #(
    parameter int unsigned UNITS = 2,
    parameter int unsigned PORT_BYTES = 16,
    parameter int unsigned HALVES = 2,
    parameter int unsigned SHARE = 1,            // matrix_quad
    parameter int unsigned LINES = 2048,         // accumulators of a quad and token (matrix_quad)
    parameter int unsigned SLOT_WIDTH = 3,
    parameter int unsigned RESULT_BLOCKS = 4,
    localparam int unsigned ROW_WIDTH = $clog2(4 * HALVES),
    localparam int unsigned ENTRY_WIDTH = ROW_WIDTH + 1,
    localparam int unsigned GROUP_WIDTH = $clog2(LINES) - ROW_WIDTH,
    localparam int unsigned TILE = 4 * HALVES * UNITS,
    localparam int unsigned SETS = (TILE > 32) ? TILE / 32 : 1
) (
    input  logic                             clk_i,
    input  logic                             rst_i,
    // the format; steady while units are under way
    input  dlavm_formats_pkg::element_e      element_i,
    input  logic                             e8m0_i,
    input  logic                             zero_i,
    input  logic                             keys_i,
    // the operand (activation_feed)
    input  logic                             valid_i,
    output logic                             take_o,
    input  logic [SETS-1:0][1:0][31:0][11:0] mantissa_i,
    input  logic [SETS-1:0][1:0][7:0]        exp_i,
    input  logic [1:0][17:0]                 sum_i,
    input  logic                             single_i,
    input  logic                             fresh_i,
    input  logic                             load_i,
    input  logic                             keep_i,
    input  logic                             result_i,
    input  logic                             release_i,
    input  logic [SLOT_WIDTH-1:0]            slot_i,
    input  logic [GROUP_WIDTH-1:0]           group_i,
    input  logic [GROUP_WIDTH-1:0]           held_group_i,
    // unit buffer
    output logic [SLOT_WIDTH-1:0]            read_slot_o,
    output logic [ENTRY_WIDTH-1:0]           read_entry_o,
    input  logic [UNITS-1:0][3:0][3:0][11:0] code_i,
    output logic [SLOT_WIDTH-1:0]            meta_slot_o,
    input  logic [UNITS-1:0][4*HALVES-1:0][23:0] metadata_i,
    output logic                             release_o,
    // results
    output logic                             result_o,
    output logic [ROW_WIDTH-1:0]             result_row_o,
    output logic [UNITS-1:0][1:0][31:0]      acc_o,
    input  logic                             result_free_i,
    output logic                             idle_o
);

  import dlavm_formats_pkg::*;

  localparam int unsigned LINE_WIDTH = $clog2(LINES);

  logic narrow, plain, symmetric, cache;
  assign narrow    = element_i inside {ELEMENT_INT4, ELEMENT_E2M1};
  assign plain     = element_i inside {ELEMENT_INT8, ELEMENT_CACHE};
  assign cache     = (element_i == ELEMENT_CACHE);
  assign symmetric = ~zero_i;

  logic                   valid, first, last, odd, turn, alone, of_one, fresh, load, keep, result, release_unit, retire;
  logic [7:0][26:0]       pair;
  logic [7:0]             below, above;
  logic [SETS-1:0][1:0][3:0][11:0] mantissa;
  logic [SETS-1:0][1:0][7:0] exp, row_exp;
  logic [1:0][17:0]       sum, row_sum;
  logic [SLOT_WIDTH-1:0]  slot;
  logic [GROUP_WIDTH-1:0] group, held_group;
  matrix_steps #(.HALVES(HALVES), .SHARE(SHARE), .SETS(SETS), .RESULT_BLOCKS(RESULT_BLOCKS), .SLOT_WIDTH(SLOT_WIDTH),
                 .GROUP_WIDTH(GROUP_WIDTH)) u_steps (
      .clk_i, .rst_i, .narrow_i(narrow), .six_i(element_i == ELEMENT_E2M3), .plain_i(plain), .valid_i, .take_o, .mantissa_i, .exp_i,
      .sum_i, .single_i, .fresh_i, .load_i, .keep_i, .result_i, .release_i, .slot_i, .group_i, .held_group_i, .read_slot_o,
      .read_entry_o, .valid_o(valid), .first_o(first), .last_o(last), .odd_o(odd), .turn_o(turn), .alone_o(alone), .pair_o(pair), .below_o(below),
      .above_o(above), .mantissa_o(mantissa), .exp_o(exp), .sum_o(sum), .fresh_o(fresh), .load_o(load), .keep_o(keep),
      .result_o(result), .release_o(release_unit), .slot_o(slot), .group_o(group), .held_group_o(held_group),
      .result_free_i, .retire_i(retire), .idle_o);

  logic [HALVES-1:0]     capture;
  logic [ROW_WIDTH-1:0]  row;
  logic                  read_held, fresh_term, bypass, bypass_last, write, write_held;
  logic [LINE_WIDTH-1:0] read_line, write_line;
  matrix_control #(.HALVES(HALVES), .LINES(LINES), .SLOT_WIDTH(SLOT_WIDTH), .SETS(SETS)) u_control (
      .clk_i, .rst_i, .last_i(last), .alone_i(alone), .fresh_i(fresh), .load_i(load), .keep_i(keep), .result_i(result),
      .release_i(release_unit), .slot_i(slot), .group_i(group), .held_group_i(held_group), .exp_i(exp), .sum_i(sum),
      .slot_o(meta_slot_o), .release_o, .capture_o(capture), .of_one_o(of_one), .row_o(row), .sum_o(row_sum), .exp_o(row_exp),
      .read_held_o(read_held), .read_line_o(read_line), .fresh_o(fresh_term), .bypass_o(bypass),
      .bypass_last_o(bypass_last), .write_o(write), .write_held_o(write_held), .write_line_o(write_line), .result_o,
      .result_row_o, .retire_o(retire));

  for (genvar u = 0; u < int'(UNITS); u++) begin : g_quad
    localparam int unsigned SET = matrix_pkg::first_row(u, 0, UNITS, HALVES, PORT_BYTES) / 32;
    matrix_quad #(.HALVES(HALVES), .SHARE(SHARE), .LINES(LINES)) u_quad (
        .clk_i, .element_i, .narrow_i(narrow), .e8m0_i, .symmetric_i(symmetric), .cache_i(cache), .row_exp_i(keys_i),
        .valid_i(valid), .first_i(first), .odd_i(odd), .turn_i(turn), .alone_i(alone), .code_i(code_i[u]), .pair_i(pair), .below_i(below),
        .above_i(above), .mantissa_i(mantissa[SET]), .capture_i(capture), .of_one_i(of_one), .metadata_i(metadata_i[u]), .row_i(row),
        .sum_i(row_sum), .exp_i(row_exp[SET]), .read_held_i(read_held), .read_line_i(read_line), .fresh_i(fresh_term),
        .bypass_i(bypass), .bypass_last_i(bypass_last), .write_i(write), .write_held_i(write_held),
        .write_line_i(write_line), .acc_o(acc_o[u]));
  end

endmodule
