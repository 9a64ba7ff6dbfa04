// One lane of the vector engine: the units that every step shares, and the operands in front of them. A step is at stage
// 1 when its operands leave the memories, at 2 in front of the units, at 7 a result, at 10 a rounded output; the caller
// hands in the step of each stage (vector_lanes).
module vector_lane #(
    parameter int unsigned NUMBER = 0  // of the lane
) (
    input  logic              clk_i,

    // Stage 1.
    input  vector_pkg::step_t step1_i,
    input  logic              inside1_i,   // the element belongs to the row
    input  logic              fresh1_i,    // the accumulator's first element
    input  logic              fresh_b1_i,  // b is an accumulator that no element went to
    input  logic [15:0]       load_a_i,
    input  logic [15:0]       load_b_i,
    input  logic [15:0]       out_i,
    input  logic [31:0]       value_a_i,
    input  logic [31:0]       value_b_i,
    input  logic [31:0]       scalar_i,
    output logic [10:0]       index_o,     // of the activation table; its pair comes a stage later

    // Stage 2.
    input  vector_pkg::step_t step2_i,
    input  logic [63:0]       pair_i,
    input  logic              forward2_i,  // a is the result of this step SUM_LATENCY cycles ago
    input  logic              behind2_i,   // at or behind the place that SELECT and FIND start from
    output logic [31:0]       operand_o,   // a, for the unit that one lane has

    // Stage 3: FIND.
    output logic              equal_o,

    // Stage 7.
    input  vector_pkg::step_t step7_i,
    input  logic              inside7_i,
    input  logic [31:0]       position_i,
    input  logic [31:0]       shared_i,    // from the unit that one lane has
    output logic [31:0]       result_o,

    // Stage 10.
    input  vector_pkg::step_t step10_i,
    output logic [15:0]       out_o
);

  import vector_pkg::*;

  // The lane's number in fp32.
  localparam int unsigned TOP = $clog2(NUMBER + 1);
  localparam logic [31:0] NUMBER_FP = (NUMBER == 0) ? 32'd0 : {1'b0, 8'(126 + TOP), 23'(NUMBER << (24 - TOP))};

  // 1: the operands as fp32.
  logic [31:0] load_a, load_b, a1, b1, neutral;
  fp16_to_fp32 u_load_a (.half_i(load_a_i), .value_o(load_a));
  fp16_to_fp32 u_load_b (.half_i((step1_i.b == B_OUT) ? out_i : load_b_i), .value_o(load_b));
  assign neutral = (step1_i.unit == MAX) ? LOWEST : 32'd0;

  logic [15:0] finite;
  assign finite  = fp_pkg::finite_half(load_a_i);
  assign index_o = finite[15:5];

  always_comb begin
    case (step1_i.a)
      A_L0, A_L1, A_L3, A_SWAP0: a1 = load_a;
      A_LANE:                    a1 = NUMBER_FP;
      default:                   a1 = (step1_i.a == A_ACC && fresh1_i) ? neutral : value_a_i;
    endcase
    case (step1_i.b)
      B_L0, B_L1, B_C1, B_C2, B_C3, B_X2, B_X3, B_OUT: b1 = load_b;
      B_V0, B_V1, B_ACC:                         b1 = fresh_b1_i ? neutral : value_b_i;
      B_FRACTION:                                b1 = fp_pkg::small_integer(finite[4:0]);
      default:                                   b1 = scalar_i;
    endcase
    if (step1_i.special == MASK && !inside1_i) b1 = neutral;
    b1[31] = b1[31] ^ (step1_i.special == NEG || (step1_i.special == ALT && NUMBER % 2 == 0));
  end

  // 2: into the units. Sums and maxima are there again before they are in the memories; only their own units take them
  // back, so that no other operand waits for the choice (dlavm/target/vector.py refuses tables that want it).
  logic [31:0] product, sum, sum_early, power, chosen, chosen_early;
  logic [31:0] a_q, b_q, a;
  always_ff @(posedge clk_i) begin
    a_q <= a1;
    b_q <= b1;
  end
  assign operand_o = a_q;
  assign a = (step2_i.a == A_SLOPE) ? pair_i[31:0] : (step2_i.a == A_BASE) ? pair_i[63:32] : a_q;

  fp32_mul u_mul (.clk_i, .a_i(a), .b_i(b_q), .product_o(product));
  fp32_add u_add (.clk_i, .a_i(forward2_i ? sum_early : a), .b_i(b_q), .sum_o(sum_early));
  delay_line #(.WIDTH(32), .CYCLES(fp_pkg::MUL_LATENCY - fp_pkg::ADD_LATENCY)) u_sum (
      .clk_i, .value_i(sum_early), .value_o(sum));
  exp_unit u_exp (.clk_i, .t_i(a), .value_o(power));
  vector_order u_order (
      .clk_i, .select_i(step2_i.unit == SELECT), .behind_i(behind2_i), .a_i(forward2_i ? chosen_early : a), .b_i(b_q),
      .equal_o, .early_o(chosen_early), .value_o(chosen));

  // 7: the result.
  always_comb begin
    case (step7_i.unit)
      MUL:         result_o = product;
      ADD:         result_o = sum;
      EXP:         result_o = power;
      POSITION:    result_o = position_i;
      ROOT, RECIP: result_o = shared_i;
      default:     result_o = chosen;
    endcase
  end

  // 8 to 10: rounded, or the loaded half as it was.
  logic [31:0] result_q;
  always_ff @(posedge clk_i) result_q <= (step7_i.special == MASK && !inside7_i) ? 32'd0 : result_o;

  logic [15:0] rounded, copy;
  fp32_to_fp16 u_round (.clk_i, .value_i(result_q), .half_o(rounded));
  delay_line #(.WIDTH(16), .CYCLES(9)) u_copy (.clk_i, .value_i(load_a_i), .value_o(copy));
  always_comb begin
    case (step10_i.special)
      COPY:    out_o = copy;
      ZERO:    out_o = '0;
      default: out_o = rounded;
    endcase
  end

  logic unused_steps;
  assign unused_steps = &{1'b0, step1_i, step2_i, step7_i, step10_i};

endmodule
