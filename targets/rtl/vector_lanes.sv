// The lanes of the vector engine with their memories: loaded strips (two banks of four streams, fp16), temporaries and
// accumulators (fp32), the strip that was output last (fp16), scalars of a row. A chunk issued in stage 0 leaves
// the memories in stage 1, enters the units in stage 2, is written back in stage 7 and output in stage 10.
module vector_lanes #(
    parameter int unsigned LANES = 8
) (
    input  logic                     clk_i,
    input  logic                     rst_i,

    input  logic                     valid_i,
    input  vector_pkg::issue_t       issue_i,
    input  logic                     bank_i,

    input  logic                     load_valid_i,
    input  logic [6:0]               load_place_i,  // bank, stream, chunk
    input  logic [LANES-1:0][15:0]   load_i,

    input  logic [1:0][31:0]         immediate_i,
    input  logic [1:0]               act_slot_i,
    input  logic                     table_write_i,
    input  logic [1:0]               table_slot_i,
    input  logic [10:0]              table_index_i,
    input  logic [63:0]              table_pair_i,

    output logic                     out_valid_o,
    output logic [LANES-1:0][15:0]   out_o,
    output logic                     word_valid_o,
    output logic [31:0]              word_o
);

  import vector_pkg::*;

  // Stages 1 to 10 of what is on its way.
  logic [10:1]            valid_q;
  issue_t [10:1]          on_q;
  logic [7:1][LANES-1:0]  inside_q;
  logic [3:2][LANES-1:0]  behind_q;

  // The result's lane 0 decides where TOPK goes on.
  logic        found_q;
  logic [23:0] index_q, from_q;
  logic [GROUP-1:0][31:0] s0_q, s1_q;  // of each row
  logic [31:0] s2_q, s3_q;             // of rows that are worked on alone

  logic [LANES-1:0] member, behind;
  for (genvar p = 0; p < int'(LANES); p++) begin : g_place
    logic [11:0] place;
    assign place     = 12'(issue_i.column) * 12'(LANES) + 12'(p);
    assign member[p] = place < issue_i.count && place >= 12'(issue_i.skip);
    assign behind[p] = on_q[1].number + 24'(p) >= from_q;
  end

  always_ff @(posedge clk_i) begin
    valid_q  <= rst_i ? '0 : {valid_q[9:1], valid_i};
    on_q     <= {on_q[9:1], issue_i};
    inside_q <= {inside_q[6:1], member};
    behind_q <= {behind_q[2], behind};
  end

  // Stage 0: the memories, each with a copy for a and for b.
  function automatic logic [1:0] stream_a(input a_e a);
    stream_a = (a == A_L1) ? 2'd1 : (a == A_L3) ? 2'd3 : 2'd0;
  endfunction
  function automatic logic [1:0] stream_b(input b_e b);
    case (b)
      B_L1, B_C1: stream_b = 2'd1;
      B_C2, B_X2: stream_b = 2'd2;
      B_C3, B_X3: stream_b = 2'd3;
      default:    stream_b = 2'd0;
    endcase
  endfunction
  function automatic logic [1:0] register_to(input to_e to);
    register_to = (to == TO_ACC) ? 2'd2 : (to == TO_V1) ? 2'd1 : 2'd0;
  endfunction

  logic [LANES-1:0][15:0] load_a [128];
  logic [LANES-1:0][15:0] load_b [128];
  logic [LANES-1:0][31:0] value_a [64];
  logic [LANES-1:0][31:0] value_b [64];
  logic [LANES-1:0][15:0] sent [STRIP];
  logic [LANES-1:0][15:0] load_a_q, load_b_q, sent_q;
  logic [LANES-1:0][31:0] value_a_q, value_b_q;
  logic [31:0]            powers [256];
  logic [31:0]            power_q;

  logic [3:0]             chunk_b;
  logic [5:0]             value_a_place, value_b_place, to_place;
  always_comb begin
    case (issue_i.step.b)
      B_C1, B_C2, B_C3: chunk_b = issue_i.column;
      B_X2, B_X3:       chunk_b = issue_i.column >> 1;
      default:          chunk_b = issue_i.chunk;
    endcase
    value_a_place = (issue_i.step.a == A_ACC) ? {2'd2, issue_i.slot_a} : {2'd0, issue_i.chunk};
    case (issue_i.step.b)
      B_ACC:   value_b_place = {2'd2, issue_i.slot_b};
      B_V1:    value_b_place = {2'd1, issue_i.chunk};
      default: value_b_place = {2'd0, issue_i.chunk};
    endcase
    to_place = {register_to(on_q[7].step.to), (on_q[7].step.to == TO_ACC) ? on_q[7].slot_a : on_q[7].chunk};
  end

  logic                   write;
  logic [LANES-1:0][31:0] result;
  logic [LANES-1:0][15:0] out;
  assign write = valid_q[7] && !(on_q[7].step.to == TO_NONE || on_q[7].step.to == TO_OUT || on_q[7].step.to == TO_WORD);

  always_ff @(posedge clk_i) begin
    if (load_valid_i) begin
      load_a[load_place_i] <= load_i;
      load_b[load_place_i] <= load_i;
    end
    if (write) begin
      value_a[to_place] <= result;
      value_b[to_place] <= result;
    end
    if (write && on_q[7].step.to == TO_POWER) powers[on_q[7].rank] <= result[0];
    if (out_valid_o) sent[on_q[10].chunk] <= out;
    load_a_q  <= load_a[{bank_i, stream_a(issue_i.step.a), issue_i.chunk}];
    load_b_q  <= load_b[{bank_i, stream_b(issue_i.step.b), chunk_b}];
    value_a_q <= value_a[value_a_place];
    value_b_q <= value_b[value_b_place];
    sent_q    <= sent[issue_i.chunk];
    power_q   <= powers[issue_i.rank];
  end

  // Stage 1: the scalar that all lanes share; lanes exchange elements.
  logic [31:0] scalar;
  always_comb begin
    case (on_q[1].step.b)
      B_S1:     scalar = s1_q[on_q[1].row];
      B_S2:     scalar = s2_q;
      B_S3:     scalar = s3_q;
      B_IMM0:   scalar = immediate_i[0];
      B_IMM1:   scalar = immediate_i[1];
      B_LOG2E:  scalar = dlavm_tables_pkg::Log2e;
      B_POWER:  scalar = power_q;
      default:  scalar = s0_q[on_q[1].row];
    endcase
  end

  logic [LANES-1:0][15:0] lane_load_a, lane_load_b;
  logic [LANES-1:0][31:0] lane_value_b;
  always_comb begin
    for (int p = 0; p < int'(LANES); p++) begin
      lane_load_a[p] = (on_q[1].step.a == A_SWAP0) ? load_a_q[p^1] : load_a_q[p];
      if (on_q[1].step.b == B_X2 || on_q[1].step.b == B_X3)
        lane_load_b[p] = on_q[1].column[0] ? load_b_q[int'(LANES)/2+p/2] : load_b_q[p/2];
      else lane_load_b[p] = load_b_q[p];
      lane_value_b[p] = value_b_q[p];
      for (int k = 0; (1 << k) < int'(LANES); k++)
        if (on_q[1].rotate == 3'(k + 1)) lane_value_b[p] = value_b_q[(p+(1<<k))%int'(LANES)];
    end
  end

  logic [LANES-1:0][10:0] index;
  logic [LANES-1:0][63:0] pair;
  logic [LANES-1:0][31:0] operand;
  logic [LANES-1:0]       equal;
  logic [31:0]            position, shared;
  act_tables #(.READERS(LANES), .SLOTS(4)) u_tables (
      .clk_i, .rst_i, .write_i(table_write_i), .write_slot_i(table_slot_i), .write_index_i(table_index_i),
      .write_pair_i(table_pair_i), .slot_i(act_slot_i), .index_i(index), .pair_o(pair));
  int_to_fp32 #(.WIDTH(25)) u_position (
      .clk_i, .int_i($signed(on_q[4].position)), .exp_i(8'sd0), .value_o(position));
  root_unit u_root (.clk_i, .root_i(on_q[2].step.unit == ROOT), .x_i(operand[0]), .value_o(shared));

  for (genvar p = 0; p < int'(LANES); p++) begin : g_lane
    vector_lane #(.NUMBER(p)) u_lane (
        .clk_i, .step1_i(on_q[1].step), .inside1_i(inside_q[1][p]), .fresh1_i(on_q[1].fresh_a),
        .fresh_b1_i(on_q[1].fresh_b), .load_a_i(lane_load_a[p]), .load_b_i(lane_load_b[p]), .out_i(sent_q[p]),
        .value_a_i(value_a_q[p]), .value_b_i(lane_value_b[p]), .scalar_i(scalar), .index_o(index[p]),
        .step2_i(on_q[2].step), .pair_i(pair[p]), .forward2_i(on_q[2].forward_a),
        .behind2_i(behind_q[2][p]), .operand_o(operand[p]), .equal_o(equal[p]),
        .step7_i(on_q[7].step), .inside7_i(inside_q[7][p]), .position_i(position), .shared_i(shared),
        .result_o(result[p]), .step10_i(on_q[10].step), .out_o(out[p]));
  end

  // Stage 3: the first element that FIND looks for. Of the same value as the last rank's it must come behind that.
  logic             same, hit;
  logic [LANES-1:0] hits;
  logic [23:0]      hit_index;
  assign same = s0_q[0] == s3_q || (s0_q[0][30:0] == 0 && s3_q[30:0] == 0);
  assign hits = equal & inside_q[3] & (behind_q[3] | {LANES{!same}});
  assign hit  = valid_q[3] && on_q[3].step.unit == FIND && hits != 0;
  always_comb begin
    hit_index = on_q[3].number;
    for (int p = int'(LANES) - 1; p >= 0; p--) if (hits[p]) hit_index = on_q[3].number + 24'(p);
  end

  // Scalars, each written by one lane's result (stage 7), a slope as it was loaded (stage 1).
  logic special_init, special_latch;
  assign special_init  = valid_q[7] && on_q[7].step.special == INIT;
  assign special_latch = valid_q[7] && on_q[7].step.special == LATCH;

  always_ff @(posedge clk_i) begin
    if (hit && !found_q) index_q <= hit_index;
    if (special_init || special_latch) found_q <= 1'b0;
    else if (hit) found_q <= 1'b1;
    if (special_init) from_q <= '0;
    else if (special_latch) from_q <= index_q + 24'd1;

    if (write && on_q[7].step.to == TO_S0) s0_q[on_q[7].row] <= result[0];
    if (write && on_q[7].step.to == TO_S1 && !(on_q[7].step.special == FIRST_RANK && on_q[7].rank != 0))
      s1_q[on_q[7].row] <= result[0];
    if (valid_q[1] && on_q[1].step.special == SLOPE) s1_q[0] <= {load_a_q[1], load_a_q[0]};
    if (write && on_q[7].step.to == TO_S2) s2_q <= result[0];
    if (special_init) s2_q <= '0;
    if (special_init) s3_q <= {1'b0, fp_pkg::MAX_FINITE};
    else if (special_latch) s3_q <= s0_q[0];
  end

  assign word_valid_o = valid_q[7] && on_q[7].step.to == TO_WORD;
  assign word_o       = (on_q[7].step.special == INDEX) ? 32'(index_q) : result[0];
  assign out_valid_o  = valid_q[10] && on_q[10].step.to == TO_OUT;
  assign out_o        = out;

  logic unused_bits;
  assign unused_bits = &{1'b0, on_q, operand};

endmodule
