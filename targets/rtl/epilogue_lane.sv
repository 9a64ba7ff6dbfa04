// The epilogue of one column (doc/numerics.md, section 3), a row a cycle. Valid after three products, two sums, two
// roundings to fp16 and an activation table (epilogue counts them). A step that is not asked for gets an operand that
// changes nothing: 1 for a product, -0 for a sum (+0 would turn -0 into +0). A row's operands come a cycle before its sum.
module epilogue_lane #(
    localparam int unsigned ROW_SCALE = 1 + fp_pkg::MUL_LATENCY,
    localparam int unsigned BIAS = ROW_SCALE + fp_pkg::MUL_LATENCY,
    localparam int unsigned ACT = BIAS + fp_pkg::ADD_LATENCY,
    localparam int unsigned ACT_CYCLES = fp_pkg::HALF_LATENCY + fp_pkg::ACT_LATENCY,
    localparam int unsigned AUX = ACT + ACT_CYCLES
) (
    input  logic        clk_i,
    // steady while rows are under way
    input  logic        use_scale_i,
    input  logic        use_row_scale_i,
    input  logic        use_bias_i,
    input  logic        use_act_i,
    input  logic        mul_aux_i,
    input  logic        add_aux_i,
    input  logic [31:0] scale_i,
    // a row
    input  logic [31:0] row_scale_i,
    input  logic [15:0] bias_i,
    input  logic [15:0] aux_i,
    input  logic [31:0] acc_i,        // a cycle later
    // the activation table answers a cycle later
    output logic [10:0] act_index_o,
    input  logic [63:0] act_pair_i,
    output logic [15:0] y_o
);

  localparam logic [31:0] ONE = 32'h3f80_0000;
  localparam logic [31:0] NOTHING = 32'h8000_0000;

  logic [31:0] row_scale, bias32, aux32, scaled, row_scaled, biased, waiting, activated, multiplied, added;
  logic [15:0] bias, aux, half;
  logic [31:0] aux_sum, bias_read, aux_read;

  delay_line #(.WIDTH(32), .CYCLES(ROW_SCALE)) u_row_scale (
      .clk_i, .value_i(use_row_scale_i ? row_scale_i : ONE), .value_o(row_scale));
  // They wait as fp16; a register between reading them and what the multiplier or adder does first.
  delay_line #(.WIDTH(16), .CYCLES(BIAS - 1)) u_bias (.clk_i, .value_i(bias_i), .value_o(bias));
  delay_line #(.WIDTH(16), .CYCLES(AUX - 1)) u_aux (.clk_i, .value_i(aux_i), .value_o(aux));
  fp16_to_fp32 u_bias32 (.half_i(bias), .value_o(bias_read));
  fp16_to_fp32 u_aux32 (.half_i(aux), .value_o(aux_read));
  always_ff @(posedge clk_i) begin
    bias32 <= bias_read;
    aux32  <= aux_read;
  end

  fp32_mul u_mul_scale (.clk_i, .a_i(acc_i), .b_i(use_scale_i ? scale_i : ONE), .product_o(scaled));
  fp32_mul u_mul_row_scale (.clk_i, .a_i(scaled), .b_i(row_scale), .product_o(row_scaled));
  fp32_add u_add_bias (.clk_i, .a_i(row_scaled), .b_i(use_bias_i ? bias32 : NOTHING), .sum_o(biased));

  fp32_to_fp16 u_act_half (.clk_i, .value_i(biased), .half_o(half));
  act_eval u_act (.clk_i, .half_i(half), .index_o(act_index_o), .pair_i(act_pair_i), .value_o(activated));
  delay_line #(.WIDTH(32), .CYCLES(ACT_CYCLES)) u_no_act (.clk_i, .value_i(biased), .value_o(waiting));

  fp32_mul u_mul_aux (
      .clk_i, .a_i(use_act_i ? activated : waiting), .b_i(mul_aux_i ? aux32 : ONE), .product_o(multiplied));
  delay_line #(.WIDTH(32), .CYCLES(fp_pkg::MUL_LATENCY)) u_aux_add (
      .clk_i, .value_i(add_aux_i ? aux32 : NOTHING), .value_o(aux_sum));
  fp32_add u_add_aux (.clk_i, .a_i(multiplied), .b_i(aux_sum), .sum_o(added));
  fp32_to_fp16 u_half (.clk_i, .value_i(added), .half_o(y_o));

endmodule
