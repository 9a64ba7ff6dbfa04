// Everything under test in one top, so that it compiles once. Banks of WAYS equal units take many cases a cycle.
module rtl_bench #(
    parameter int unsigned WAYS = 32
) (
    input  logic clk_i,
    input  logic rst_i,

    input  logic [WAYS-1:0][31:0] a_i,
    input  logic [WAYS-1:0][31:0] b_i,
    output logic [WAYS-1:0][31:0] sum_o,
    output logic [WAYS-1:0][31:0] product_o,
    output logic [WAYS-1:0][31:0] narrow_product_o,  // b of 11 bits, no subnormals

    input  logic [WAYS-1:0][31:0] int_i,
    input  logic [WAYS-1:0][7:0]  int_exp_i,
    output logic [WAYS-1:0][31:0] int20_o,
    output logic [WAYS-1:0][31:0] int35_o,

    input  logic [WAYS-1:0][15:0] half_i,
    output logic [WAYS-1:0][31:0] half_o,

    input  logic               block_valid_i,
    input  logic [31:0][15:0]  block_i,
    output logic               block12_valid_o,
    output logic [31:0][11:0]  block12_o,
    output logic [7:0]         block12_exp_o,
    output logic               block8_valid_o,
    output logic [31:0][7:0]   block8_o,
    output logic [7:0]         block8_exp_o,

    input  logic               eight_i,
    input  logic [31:0][7:0]   power_i,
    output logic               activation_valid_o,
    output logic [31:0][11:0]  activation_o,
    output logic [7:0]         activation_exp_o,
    output logic [17:0]        activation_sum_o,

    // matrix_control with one quad of one row a lane
    input  logic [3:0][23:0]      quad_metadata_i,  // written to quad_slot_i
    input  logic                  quad_metadata_valid_i,
    input  logic                  quad_valid_i,
    input  logic                  quad_first_i,
    input  logic                  quad_last_i,
    input  logic                  quad_tile_first_i,
    input  logic                  quad_tile_last_i,
    input  logic                  quad_slot_i,
    input  logic [3:0]            quad_group_i,
    input  logic [1:0][7:0]       quad_exp_i,
    input  logic [3:0][3:0][7:0]  quad_code_i,
    input  logic [7:0][26:0]      quad_pair_i,
    input  logic [7:0]            quad_below_i,
    input  logic [7:0]            quad_above_i,
    output logic                  quad_valid_o,
    output logic [1:0]            quad_row_o,
    output logic [1:0][31:0]      quad_acc_o
);

  for (genvar w = 0; w < int'(WAYS); w++) begin : g_way
    fp32_add u_add (.clk_i, .a_i(a_i[w]), .b_i(b_i[w]), .sum_o(sum_o[w]));
    fp32_mul u_mul (.clk_i, .a_i(a_i[w]), .b_i(b_i[w]), .product_o(product_o[w]));
    fp32_mul #(.B_SIG(11), .SUBNORMALS(1'b0)) u_narrow_mul (
        .clk_i, .a_i(a_i[w]), .b_i(b_i[w]), .product_o(narrow_product_o[w]));
    int_to_fp32 #(.WIDTH(20)) u_int20 (
        .clk_i, .int_i(int_i[w][19:0]), .exp_i(int_exp_i[w]), .value_o(int20_o[w]));
    int_to_fp32 #(.WIDTH(35)) u_int35 (
        .clk_i, .int_i({int_i[w], 3'd5}), .exp_i(int_exp_i[w]), .value_o(int35_o[w]));
    fp16_to_fp32 u_half (.half_i(half_i[w]), .value_o(half_o[w]));
  end

  quantizer #(.ACT_BITS(12)) u_quantizer12 (
      .clk_i, .rst_i, .valid_i(block_valid_i), .x_i(block_i),
      .valid_o(block12_valid_o), .mantissa_o(block12_o), .exp_o(block12_exp_o));
  quantizer #(.ACT_BITS(8)) u_quantizer8 (
      .clk_i, .rst_i, .valid_i(block_valid_i), .x_i(block_i),
      .valid_o(block8_valid_o), .mantissa_o(block8_o), .exp_o(block8_exp_o));

  activation_quantizer u_activation (
      .clk_i, .rst_i, .eight_i, .valid_i(block_valid_i), .x_i(block_i), .power_i, .valid_o(activation_valid_o),
      .mantissa_o(activation_o), .exp_o(activation_exp_o), .sum_o(activation_sum_o));

  localparam int unsigned LINES = 64;
  logic             capture, of_one, held, fresh, bypass, bypass_last, write, write_held, slot;
  logic [1:0]       row;
  logic [5:0]       read_line, write_line;
  logic [1:0][7:0]  exp;
  logic [1:0][17:0] sum;
  logic [3:0][23:0] metadata [2];
  logic             unused_release, unused_retire;
  always_ff @(posedge clk_i) if (quad_metadata_valid_i) metadata[quad_slot_i] <= quad_metadata_i;

  matrix_control #(.HALVES(1), .LINES(LINES), .SLOT_WIDTH(1)) u_control (
      .clk_i, .rst_i, .last_i(quad_valid_i & quad_last_i), .alone_i(1'b0), .fresh_i(quad_tile_first_i), .load_i(1'b0), .keep_i(1'b0),
      .result_i(quad_tile_last_i), .release_i(1'b0), .slot_i(quad_slot_i), .group_i(quad_group_i), .held_group_i('0),
      .exp_i(quad_exp_i), .sum_i('0), .slot_o(slot), .release_o(unused_release), .capture_o(capture), .of_one_o(of_one),
      .row_o(row), .sum_o(sum), .exp_o(exp), .read_held_o(held), .read_line_o(read_line), .fresh_o(fresh), .bypass_o(bypass),
      .bypass_last_o(bypass_last), .write_o(write), .write_held_o(write_held), .write_line_o(write_line),
      .result_o(quad_valid_o), .result_row_o(quad_row_o), .retire_o(unused_retire));

  logic [3:0][3:0][11:0] code;
  always_comb for (int r = 0; r < 4; r++) for (int kk = 0; kk < 4; kk++) code[r][kk] = 12'(quad_code_i[r][kk]);
  matrix_quad #(.HALVES(1), .LINES(LINES)) u_quad (
      .clk_i, .element_i(dlavm_formats_pkg::ELEMENT_INT4), .narrow_i(1'b1), .e8m0_i(1'b0), .symmetric_i(1'b1),
      .cache_i(1'b0), .row_exp_i(1'b0), .valid_i(quad_valid_i), .first_i(quad_first_i), .odd_i(1'b0), .turn_i(1'b0), .alone_i(1'b0),
      .code_i(code), .pair_i(quad_pair_i), .below_i(quad_below_i), .above_i(quad_above_i), .mantissa_i('0), .capture_i(capture),
      .of_one_i(of_one), .metadata_i(metadata[slot]), .row_i(row), .sum_i(sum), .exp_i(exp), .read_held_i(held), .read_line_i(read_line),
      .fresh_i(fresh), .bypass_i(bypass), .bypass_last_i(bypass_last), .write_i(write), .write_held_i(write_held),
      .write_line_i(write_line), .acc_o(quad_acc_o));

endmodule
