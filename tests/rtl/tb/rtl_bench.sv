// Everything under test in one top, so that it compiles once. Banks of WAYS equal units take many cases a cycle.
module rtl_bench #(
    parameter int unsigned WAYS = 32,
    parameter int unsigned SLICE_BYTES = 32
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
    output logic [WAYS-1:0][31:0] int28_o,

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

    input  logic [10:0]                 slice_blocks_i,
    input  logic                        slice_resume_i,
    input  logic                        slice_valid_i,
    input  logic [SLICE_BYTES*8-1:0]    slice_beat_i,
    input  logic [7:0][26:0]            slice_pair_i,
    input  logic [1:0][7:0]             slice_exp_i,
    output logic                        slice_valid_o,
    output logic [SLICE_BYTES/16-1:0][$clog2(SLICE_BYTES/2)-1:0] slice_row_o,
    output logic [SLICE_BYTES/16-1:0][1:0][31:0] slice_acc_o,

    input  logic                        quad_scale_valid_i,
    input  logic [3:0][15:0]            quad_scale_i,
    input  logic                        quad_valid_i,
    input  logic                        quad_first_i,
    input  logic                        quad_last_i,
    input  logic                        quad_tile_first_i,
    input  logic                        quad_tile_last_i,
    input  logic [1:0][7:0]             quad_exp_i,
    input  logic [3:0][7:0][3:0]        quad_weight_i,
    input  logic [7:0][26:0]            quad_pair_i,
    output logic                        quad_valid_o,
    output logic [1:0]                  quad_row_o,
    output logic [1:0][31:0]            quad_acc_o,

    input  logic                        lane8_valid_i,
    input  logic                        lane8_first_i,
    input  logic [7:0][3:0]             lane8_weight_i,
    input  logic [7:0][18:0]            lane8_pair_i,
    output logic [1:0][15:0]            lane8_dot_o
);

  for (genvar w = 0; w < int'(WAYS); w++) begin : g_way
    fp32_add u_add (.clk_i, .a_i(a_i[w]), .b_i(b_i[w]), .sum_o(sum_o[w]));
    fp32_mul u_mul (.clk_i, .a_i(a_i[w]), .b_i(b_i[w]), .product_o(product_o[w]));
    fp32_mul #(.B_SIG(11), .SUBNORMALS(1'b0)) u_narrow_mul (
        .clk_i, .a_i(a_i[w]), .b_i(b_i[w]), .product_o(narrow_product_o[w]));
    int_to_fp32 #(.WIDTH(20)) u_int20 (
        .clk_i, .int_i(int_i[w][19:0]), .exp_i(int_exp_i[w]), .value_o(int20_o[w]));
    int_to_fp32 #(.WIDTH(28)) u_int28 (
        .clk_i, .int_i(int_i[w][27:0]), .exp_i(int_exp_i[w]), .value_o(int28_o[w]));
    fp16_to_fp32 u_half (.half_i(half_i[w]), .value_o(half_o[w]));
    logic unused_int_bits;
    assign unused_int_bits = &{1'b0, int_i[w][31:28]};
  end

  quantizer #(.ACT_BITS(12)) u_quantizer12 (
      .clk_i, .rst_i, .valid_i(block_valid_i), .x_i(block_i),
      .valid_o(block12_valid_o), .mantissa_o(block12_o), .exp_o(block12_exp_o));
  quantizer #(.ACT_BITS(8)) u_quantizer8 (
      .clk_i, .rst_i, .valid_i(block_valid_i), .x_i(block_i),
      .valid_o(block8_valid_o), .mantissa_o(block8_o), .exp_o(block8_exp_o));

  matrix_slice #(.PORT_BYTES(SLICE_BYTES)) u_slice (
      .clk_i, .rst_i, .blocks_i(slice_blocks_i), .resume_i(slice_resume_i), .valid_i(slice_valid_i),
      .beat_i(slice_beat_i), .pair_i(slice_pair_i), .exp_i(slice_exp_i),
      .valid_o(slice_valid_o), .row_o(slice_row_o), .acc_o(slice_acc_o));

  matrix_quad #(.HALVES(1)) u_quad (
      .clk_i, .rst_i, .scale_valid_i(quad_scale_valid_i), .scale_i(quad_scale_i), .valid_i(quad_valid_i),
      .first_i(quad_first_i), .last_i(quad_last_i), .tile_first_i(quad_tile_first_i), .tile_last_i(quad_tile_last_i), .exp_i(quad_exp_i),
      .weight_i(quad_weight_i), .pair_i(quad_pair_i),
      .valid_o(quad_valid_o), .row_o(quad_row_o), .acc_o(quad_acc_o));

  matrix_lane #(.ACT_BITS(8), .ROWS(1)) u_lane8 (
      .clk_i, .valid_i(lane8_valid_i), .first_i(lane8_first_i), .weight_i(lane8_weight_i), .pair_i(lane8_pair_i),
      .dot_o(lane8_dot_o));

endmodule
