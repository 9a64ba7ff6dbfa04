// Takes the work of the vector lanes from its queue and issues it: one chunk of one step a cycle, as soon as what it uses is
// there. A step reads what an earlier one wrote at least vector_pkg::LATENCY cycles after that was issued; in a long strip
// the chunks in between fill the time. A tree has log2(VIRTUAL) levels, over the slots of the accumulators first, over the
// lanes then (doc/numerics.md, section 4).
module vector_issue #(
    parameter int unsigned LANES = 8,
    parameter int unsigned VIRTUAL = 128
) (
    input  logic                 clk_i,
    input  logic                 rst_i,

    input  logic                 work_valid_i,
    output logic                 work_ready_o,
    input  vector_pkg::work_t    work_i,

    input  logic                 strip_ready_i,  // the bank of the next work with loads is full
    output logic                 strip_done_o,   // every element of it was read
    input  logic                 out_ready_i,    // the queues have room for what is on its way and one more
    input  logic                 word_ready_i,

    output logic                 valid_o,
    output vector_pkg::issue_t   issue_o,
    output logic                 idle_o          // nothing on its way
);

  import dlavm_vector_pkg::microcode;
  import vector_pkg::*;

  localparam int unsigned SLOTS = VIRTUAL / LANES;  // accumulators of a lane
  localparam int unsigned SLOT_BITS = (SLOTS > 1) ? $clog2(SLOTS) : 1;
  logic       begun_q;  // not the first step of the work
  logic [6:0] at_q, at;
  logic [2:0] level_q, row_q, rows;                // rows, columns, chunks: less one
  logic [3:0] column_q, columns, chunks, between, since_q, gap;
  logic       starting, first_chunk, last_chunk, last_step, sums;

  assign first_chunk = row_q == 0 && column_q == 0;
  assign starting    = !begun_q && first_chunk;
  assign at       = begun_q ? at_q : work_i.start;

  // The step and its chunks. A tree's level adds `distance` virtual lanes further up.
  step_t      step_now;
  logic [7:0] distance;
  logic [3:0] slots_up;
  logic [3:0] rotate;
  logic [3:0] used;
  assign used = 4'((work_i.count - 12'd1) / 12'(LANES));  // slots that a pass wrote to, less one
  always_comb begin
    distance = 8'(VIRTUAL / 2) >> level_q;
    slots_up = 4'(distance / 8'(LANES));
    rotate   = (slots_up != 0) ? 4'd0 : 4'($clog2(VIRTUAL)) - 4'(level_q);
    if (work_i.tree) begin
      step_now  = '{work_i.tree_max ? MAX : ADD, A_ACC, B_ACC, TO_ACC, PLAIN, 1'b0};
      columns   = (slots_up != 0) ? slots_up - 4'd1 : 4'd0;
      last_step = level_q == 3'($clog2(VIRTUAL) - 1);
    end else begin
      step_now  = microcode(at);
      columns   = used;
      last_step = step_now.last;
    end
    rows       = 3'((4'd1 << work_i.group) - 4'd1);
    chunks     = (columns << work_i.group) | 4'(rows);
    sums       = step_now.a == A_ACC && step_now.to == TO_ACC;
    last_chunk = row_q == rows && column_q == columns;
  end

  // How long after the last issue. The chunks of a step, or of a level of a tree, are all issued before the next one's, so
  // that at least so many lie between the two of a chunk. What goes to accumulators takes the rows in turns, everything else
  // row by row, as it is written; where the order changes the last row's first chunk is the one that waits. Work that uses
  // a result of each row finds the rows' results one behind the other.
  logic [3:0] latency;
  always_comb begin
    latency = (step_now.b == B_OUT) ? 4'(OUT_LATENCY) : 4'(LATENCY);
    if (starting) between = 4'(rows);
    else between = (sums && !work_i.tree) ? 4'(rows) + columns : chunks;
    if (!first_chunk || (starting && !work_i.drain && !work_i.tree)) gap = 4'd1;
    else gap = (latency > between) ? latency - between : 4'd1;
  end

  // An accumulator is due again as its sum leaves the unit, or when it is in the memory.
  logic [LATENCY-1:1]      summed_q;  // so many cycles ago
  logic [LATENCY-1:1][3:0] summed_slot_q;
  logic [LATENCY-1:1]      same_slot;
  logic [3:0]              slot_a;
  logic                    sum_due, fresh_a;
  always_comb begin
    for (int k = 1; k < int'(LATENCY); k++)
      same_slot[k] = summed_q[k] && summed_slot_q[k] == slot_a && !fresh_a;
    sum_due = !sums || same_slot == 0 || same_slot == (LATENCY - 1)'(1 << (SUM_LATENCY - 1));
  end
  always_ff @(posedge clk_i) begin
    summed_slot_q <= {summed_slot_q[LATENCY-2:1], slot_a};
    summed_q      <= rst_i ? '0 : {summed_q[LATENCY-2:1], valid_o && sums};
  end

  assign valid_o = work_valid_i && since_q >= gap && sum_due && !(starting && work_i.loads && !strip_ready_i) &&
                   !(step_now.to == TO_OUT && !out_ready_i) && !(step_now.to == TO_WORD && !word_ready_i);
  assign work_ready_o = valid_o && last_chunk && last_step;
  assign strip_done_o = work_ready_o && work_i.loads;
  assign idle_o       = !work_valid_i && since_q > 4'(OUT_LATENCY);

  always_ff @(posedge clk_i) begin
    if (rst_i) begin
      begun_q  <= 1'b0;
      at_q     <= '0;
      level_q  <= '0;
      row_q    <= '0;
      column_q <= '0;
      since_q  <= '1;
    end else if (valid_o) begin
      since_q <= 4'd1;
      if (sums) begin
        row_q <= (row_q == rows) ? 3'd0 : row_q + 3'd1;
        if (row_q == rows) column_q <= last_chunk ? 4'd0 : column_q + 4'd1;
      end else begin
        column_q <= (column_q == columns) ? 4'd0 : column_q + 4'd1;
        if (column_q == columns) row_q <= last_chunk ? 3'd0 : row_q + 3'd1;
      end
      if (last_chunk) begin
        begun_q <= !last_step;
        at_q    <= at + 7'd1;
        level_q <= last_step ? 3'd0 : level_q + 3'(work_i.tree);
      end
    end else if (since_q != '1) begin
      since_q <= since_q + 4'd1;
    end
  end

  // A pass starts over at a row's slot 0; its share of a strip has a whole number of rounds over the slots.
  logic [3:0]  slot_of_row, slot;
  logic [11:0] ahead;
  assign slot_of_row = 4'(32'(row_q) * SLOTS);
  assign slot  = slot_of_row + ((SLOTS > 1) ? 4'(column_q[SLOT_BITS-1:0]) : 4'd0);
  assign ahead = 12'(column_q) * 12'(LANES);

  // The rows in front of the last one see fewer elements, which may lie behind this strip.
  logic [2:0]  fewer;
  assign fewer = (work_i.stagger && rows - row_q > work_i.behind) ? rows - row_q - work_i.behind : 3'd0;

  assign slot_a  = work_i.tree ? slot_of_row + column_q : slot;
  assign fresh_a = work_i.tree ? level_q == 0 && column_q > used : work_i.first && 8'(column_q) < 8'(SLOTS);

  always_comb begin
    issue_o.step      = step_now;
    issue_o.row       = row_q;
    issue_o.column    = column_q;
    issue_o.chunk     = 4'({row_q, 4'd0} >> work_i.group) + column_q;
    issue_o.slot_a    = slot_a;
    issue_o.slot_b    = work_i.tree ? slot_of_row + column_q + slots_up : slot;
    issue_o.fresh_a   = fresh_a;
    issue_o.forward_a = sums && same_slot[SUM_LATENCY];
    issue_o.fresh_b   = work_i.tree && level_q == 0 && column_q + slots_up > used;
    issue_o.rotate    = work_i.tree ? rotate[2:0] : 3'd0;
    issue_o.count     = (work_i.count > 12'(fewer)) ? work_i.count - 12'(fewer) : 12'd0;
    issue_o.skip      = work_i.skip;
    issue_o.number    = work_i.number + 24'(ahead);
    issue_o.position  = work_i.position + 25'(ahead);
    issue_o.rank      = work_i.rank;
  end

  logic unused_rotate;
  assign unused_rotate = rotate[3];

endmodule
