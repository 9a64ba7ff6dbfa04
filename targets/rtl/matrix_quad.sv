// Four row lanes for two tokens and the fp32 pipeline a token that their rows share (doc/numerics.md, section 3):
//   acc = rn(acc + rn(rn(float(dot) * scale) * 2^e))
// The four lanes end a block in the same cycle; the rows then pass through the pipeline one a cycle. With HALVES = 2
// a lane serves two rows in turn (one beat a cycle, a block takes 8 cycles or more), with HALVES = 1 one row (two
// beats a cycle, 4 cycles). So a row's accumulator is due again after 4 * HALVES cycles at the earliest, and never
// later than the adder delivers it: fp_pkg::ADD_LATENCY <= 4.
//
// Only data here. All quads work in step; matrix_control counts for all of them and says in each cycle what is due
// (its ports of the same names, which also give the cycles).
module matrix_quad #(
    parameter int unsigned HALVES = 2,
    // Lanes that take turns at the wide formats (matrix_lane): 1, or 2 at half their rate.
    parameter int unsigned SHARE = 1,
    // Accumulators of a token: the quad's rows for each tile and pair of tokens. There are twice as many: those of this
    // command and those held for the next.
    parameter int unsigned LINES = 2048,
    localparam int unsigned ROWS = 4 * HALVES,
    localparam int unsigned ROW_WIDTH = $clog2(ROWS),
    localparam int unsigned LINE_WIDTH = $clog2(LINES)
) (
    input  logic                        clk_i,
    // a step: a slice of four rows
    input  dlavm_formats_pkg::element_e element_i,     // steady while steps are under way, as the flags
    input  logic                        narrow_i,
    input  logic                        e8m0_i,
    input  logic                        symmetric_i,   // no zero points
    input  logic                        cache_i,       // no scales
    input  logic                        row_exp_i,     // rows have exponents of their own, in the place of zero points
    input  logic                        valid_i,
    input  logic                        first_i,
    input  logic                        odd_i,
    input  logic                        turn_i,        // of wide formats, where lanes share: 0, 1
    input  logic                        alone_i,       // there, of one token: one turn is enough
    input  logic [3:0][3:0][11:0]       code_i,        // by row, kk
    input  logic [7:0][26:0]            pair_i,        // by k
    input  logic [7:0]                  below_i,       // the pair's lower mantissa is negative,
    input  logic [7:0]                  above_i,       // or positive
    input  logic [1:0][3:0][11:0]       mantissa_i,    // by token, kk
    // a block's end
    input  logic [HALVES-1:0]           capture_i,     // the lanes hold the dots of this half,
    input  logic                        of_one_i,      // which are those of one token
    input  logic [ROWS-1:0][23:0]       metadata_i,    // of the block, with the first half: zero, scale
    // a row a cycle
    input  logic [ROW_WIDTH-1:0]        row_i,
    input  logic [1:0][17:0]            sum_i,         // of the block's mantissas, by token
    input  logic [1:0][7:0]             exp_i,         // by token
    input  logic                        read_held_i,   // a cycle before its term: from the accumulators held for the
    input  logic [LINE_WIDTH-1:0]       read_line_i,   // next command, or from those of this one
    input  logic                        fresh_i,       // with its term: from +0,
    input  logic                        bypass_i,      // from the sum that leaves the adder now,
    input  logic                        bypass_last_i, // or from the one of the cycle before
    input  logic                        write_i,       // with its sum
    input  logic                        write_held_i,
    input  logic [LINE_WIDTH-1:0]       write_line_i,
    output logic [1:0][31:0]            acc_o          // the sum, by token
);

  // A lane that shares takes its neighbour's codes in every second turn of wide formats, and keeps the results of both.
  // With one token alone it has the neighbour's dot in the place of the second token's.
  logic [3:0][1:0][34:0] dot_of_lane, dot_before, lane_dot;
  logic [3:0][3:0][11:0] plain;
  for (genvar l = 0; l < 4; l++) begin : g_lane
    localparam bit WIDE = (SHARE == 1) || (l % 2 == 0);
    logic [7:0][4:0]  weight8;
    logic [3:0][18:0] weight4;
    logic [3:0][11:0] code;
    if (SHARE == 1) begin : g_alone
      assign code        = code_i[l];
      assign lane_dot[l] = dot_of_lane[l];
    end else if (WIDE) begin : g_shared
      assign code        = (turn_i & ~narrow_i) ? code_i[l+1] : code_i[l];
      always_comb begin
        lane_dot[l] = narrow_i ? dot_of_lane[l] : dot_before[l];
        if (of_one_i) lane_dot[l] = {35'd0, dot_of_lane[l][0]};
      end
    end else begin : g_neighbour
      assign code        = code_i[l];
      always_comb begin
        lane_dot[l] = narrow_i ? dot_of_lane[l] : dot_of_lane[l-1];
        if (of_one_i) lane_dot[l] = {35'd0, dot_of_lane[l-1][1]};
      end
    end
    weight_decode u_decode (
        .element_i, .odd_i, .code_i(code), .narrow_o(weight8), .wide_o(weight4), .plain_o(plain[l]));
    matrix_lane #(.ROWS(HALVES), .SHARE(SHARE), .WIDE(WIDE)) u_lane (
        .clk_i, .valid_i, .first_i, .narrow_i, .alone_i, .weight8_i(weight8), .weight4_i(weight4),
        .other4_i(plain[l^1]), .pair_i, .below_i, .above_i, .mantissa_i, .dot_o(dot_of_lane[l]), .dot_before_o(dot_before[l]));
  end
  logic unused_turns;
  assign unused_turns = &{1'b0, turn_i, dot_before, of_one_i};

  // Four rows at once -> one a cycle. The next block's rows cannot arrive before the last of these has gone.
  logic [HALVES-1:0][3:0][1:0][34:0] waiting_q;
  logic [ROWS-1:0][23:0]             metadata_q;
  always_ff @(posedge clk_i) begin
    for (int h = 0; h < int'(HALVES); h++) if (capture_i[h]) waiting_q[h] <= lane_dot;
    if (capture_i[0]) metadata_q <= metadata_i;
  end

  logic [ROWS-1:0][1:0][34:0] dot;
  logic [23:0]                metadata;
  assign dot      = waiting_q;
  assign metadata = metadata_q[row_i];

  // 1, 2: sum of m * (code - middle) - (zero - middle) * sum of m. Beside it scale and exponent.
  logic signed [8:0] offset, middle;
  logic [7:0]        power;
  logic [31:0]       half_scale, scale, scale_q;
  assign middle = narrow_i ? 9'sd8 : 9'sd128;
  assign offset = $signed({1'b0, metadata[23:16]}) - middle;

  fp16_to_fp32 u_scale (.half_i(metadata[15:0]), .value_o(half_scale));
  always_comb begin
    power = metadata[7:0];
    if (power < dlavm_formats_pkg::E8M0_LOWEST) power = dlavm_formats_pkg::E8M0_LOWEST;
    else if (power > dlavm_formats_pkg::E8M0_HIGHEST) power = dlavm_formats_pkg::E8M0_HIGHEST;
    scale = half_scale;
    if (e8m0_i) scale = {1'b0, power, 23'd0};
    if (cache_i) scale = 32'h3f80_0000;
  end
  delay_line #(.WIDTH(32), .CYCLES(2 + fp_pkg::INT_LATENCY)) u_beside_int (
      .clk_i, .value_i(scale), .value_o(scale_q));

  logic bypass_any;
  assign bypass_any = bypass_i | bypass_last_i;

  // Both tokens' accumulators in one memory: 64 bits wide it is URAM on a wide board.
  logic [1:0][31:0] acc_ram [2*LINES];
  logic [1:0][31:0] held_q, sum;
  always_ff @(posedge clk_i) begin
    held_q <= acc_ram[{read_held_i, read_line_i}];
    if (write_i) acc_ram[{write_held_i, write_line_i}] <= sum;
  end
  assign acc_o = sum;

  for (genvar t = 0; t < 2; t++) begin : g_token
    logic [34:0]        dot1_q, dot2_q;
    logic signed [26:0] excess1_q;
    logic signed [7:0]  exp1_q, exp2_q;
    logic [31:0]        dot32, term, acc, sum_q;

    always_ff @(posedge clk_i) begin
      dot1_q    <= dot[row_i][t];
      excess1_q <= symmetric_i ? 27'sd0 : 27'($signed(sum_i[t])) * 27'(offset);
      exp1_q    <= $signed(exp_i[t]) + (row_exp_i ? $signed(metadata[23:16]) : 8'sd0);
      dot2_q    <= dot1_q - 35'(excess1_q);
      exp2_q    <= exp1_q;
    end

    // 3-5: float(dot) * 2^e; 6-10: * scale. 11 significant bits of a scale; nothing here is ever subnormal
    // (int_to_fp32 says why).
    int_to_fp32 #(.WIDTH(35)) u_int (.clk_i, .int_i(dot2_q), .exp_i(exp2_q), .value_o(dot32));
    fp32_mul #(.B_SIG(11), .SUBNORMALS(1'b0)) u_mul (.clk_i, .a_i(dot32), .b_i(scale_q), .product_o(term));

    // 11-14: + acc
    always_ff @(posedge clk_i) sum_q <= sum[t];
    always_comb begin
      acc = held_q[t];
      if (fresh_i) acc = 32'd0;
      else if (bypass_any) acc = bypass_i ? sum[t] : sum_q;
    end
    fp32_add u_add (.clk_i, .a_i(acc), .b_i(term), .sum_o(sum[t]));
  end

endmodule
