// Takes the work of the vector lanes from its queue and issues it: one chunk of one step a cycle, as soon as what it uses is
// there. A step reads what an earlier one wrote at least vector_pkg::LATENCY cycles after that was issued; in a long strip
// the chunks in between fill the time. A tree has log2(128) levels, over the slots of the accumulators first, over the
// lanes then (doc/numerics.md, section 4).
module vector_issue #(
    parameter int unsigned LANES = 8
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

  import vector_pkg::*;

  localparam int unsigned SLOTS = VIRTUAL / LANES;  // accumulators of a lane
  localparam int unsigned SLOT_BITS = (SLOTS > 1) ? $clog2(SLOTS) : 1;
  localparam int unsigned ACC_GAP = (SLOTS >= LATENCY) ? 1 : LATENCY / SLOTS;  // between additions to one slot

  logic       begun_q;         // not the first step of the work
  logic [6:0] at_q, at;
  logic [2:0] level_q;
  logic [3:0] chunk_q, chunks, since_q, gap;  // chunks: less one
  logic       starting, last_chunk, last_step;

  assign starting = !begun_q && chunk_q == 0;
  assign at       = begun_q ? at_q : work_i.start;

  // The step and its chunks. A tree's level adds `distance` virtual lanes further up.
  step_t      step_now;
  logic [7:0] distance;
  logic [3:0] slots_up;
  logic [3:0] rotate;
  always_comb begin
    distance = 8'(VIRTUAL / 2) >> level_q;
    slots_up = 4'(distance / 8'(LANES));
    rotate   = (slots_up != 0) ? 4'd0 : 4'd7 - 4'(level_q);
    if (work_i.tree) begin
      step_now  = step(work_i.tree_max ? MAX : ADD, A_ACC, B_ACC, TO_ACC);
      chunks    = (slots_up != 0) ? slots_up - 4'd1 : 4'd0;
      last_step = level_q == 3'($clog2(VIRTUAL) - 1);
    end else begin
      step_now  = microcode(at);
      chunks    = 4'((work_i.count - 12'd1) / 12'(LANES));
      last_step = step_now.last;
    end
    last_chunk = chunk_q == chunks;
  end

  // How long after the last issue. The chunks of a program's step are all issued before the next step's, so that the
  // strip itself counts; levels of a tree shrink, so that their chunks do not.
  logic [3:0] latency;
  always_comb begin
    latency = (step_now.b == B_OUT) ? 4'(OUT_LATENCY) : 4'(LATENCY);
    if (starting) gap = (work_i.drain || work_i.tree) ? 4'(LATENCY) : 4'd1;
    else if (chunk_q != 0) gap = 4'd1;
    else if (work_i.tree) gap = latency;
    else gap = (latency > chunks) ? latency - chunks : 4'd1;
    if (step_now.a == A_ACC && step_now.to == TO_ACC && gap < 4'(ACC_GAP)) gap = 4'(ACC_GAP);
  end

  assign valid_o = work_valid_i && since_q >= gap && !(starting && work_i.loads && !strip_ready_i) &&
                   !(step_now.to == TO_OUT && !out_ready_i) && !(step_now.to == TO_WORD && !word_ready_i);
  assign work_ready_o = valid_o && last_chunk && last_step;
  assign strip_done_o = work_ready_o && work_i.loads;
  assign idle_o       = !work_valid_i && since_q > 4'(OUT_LATENCY);

  always_ff @(posedge clk_i) begin
    if (rst_i) begin
      begun_q <= 1'b0;
      at_q    <= '0;
      level_q <= '0;
      chunk_q <= '0;
      since_q <= '1;
    end else if (valid_o) begin
      since_q <= 4'd1;
      chunk_q <= last_chunk ? 4'd0 : chunk_q + 4'd1;
      if (last_chunk) begin
        begun_q <= !last_step;
        at_q    <= at + 7'd1;
        level_q <= last_step ? 3'd0 : level_q + 3'(work_i.tree);
      end
    end else if (since_q != '1) begin
      since_q <= since_q + 4'd1;
    end
  end

  // A pass starts over at slot 0; a strip has a whole number of rounds over the slots.
  logic [3:0]  slot, used;
  logic [11:0] ahead;
  assign slot  = (SLOTS > 1) ? 4'(chunk_q[SLOT_BITS-1:0]) : 4'd0;
  assign ahead = 12'(chunk_q) * 12'(LANES);
  assign used  = 4'((work_i.count - 12'd1) / 12'(LANES));  // slots that a pass wrote to, less one

  always_comb begin
    issue_o.step     = step_now;
    issue_o.chunk    = chunk_q;
    issue_o.slot_a   = work_i.tree ? chunk_q : slot;
    issue_o.slot_b   = work_i.tree ? chunk_q + slots_up : slot;
    issue_o.fresh_a  = work_i.tree ? level_q == 0 && chunk_q > used : work_i.first && 8'(chunk_q) < 8'(SLOTS);
    issue_o.fresh_b  = work_i.tree && level_q == 0 && chunk_q + slots_up > used;
    issue_o.rotate   = work_i.tree ? rotate[2:0] : 3'd0;
    issue_o.count    = work_i.count;
    issue_o.skip     = work_i.skip;
    issue_o.number   = work_i.number + 24'(ahead);
    issue_o.position = work_i.position + 25'(ahead);
    issue_o.rank     = work_i.rank;
  end

  logic unused_rotate;
  assign unused_rotate = rotate[3];

endmodule
