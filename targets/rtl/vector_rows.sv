// The rows of a command, group by group: inner rows, outer rows, batches. `load_i` goes to the first group; `next_i` to the
// next. A group has inner rows only. Addresses, of its first row, count units; `slope_o` belongs to that row, the softmax bounds
// to the last one.
module vector_rows (
    input  logic              clk_i,
    input  vector_pkg::job_t  job_i,
    input  logic              load_i,
    input  logic              next_i,
    output logic [1:0]        group_o,    // log2 of its rows
    output logic [2:0][35:0]  address_o,  // src, dst, other
    output logic [23:0]       slope_o,    // number of the row's slope
    output logic [23:0]       seen_o,     // softmax: positions up to the row's own
    output logic [23:0]       first_o,    // the first visible one
    output logic              last_o
);

  logic [2:0][35:0] at_q, outer_q, batch_q, inner_step, outer_step, batch_step;
  logic [11:0]      batch_count_q;
  logic [19:0]      inner_count_q, outer_count_q, left;
  logic [3:0]       rows;
  logic [23:0]      slope_q, batch_slope_q;
  logic [24:0]      visible_q;
  logic             last_inner, last_outer, last_batch;

  assign inner_step = {36'(job_i.other_si), 36'(job_i.dst_si), 36'(job_i.src_si)};
  assign outer_step = {36'(job_i.other_so), 36'(job_i.dst_so), 36'(job_i.src_so)};
  assign batch_step = {36'd0, 36'(job_i.dst_b), 36'(job_i.src_b)};
  assign left       = job_i.rows_i - inner_count_q;
  assign rows       = 4'd1 << group_o;
  assign last_inner = left == 20'(rows);
  assign last_outer = outer_count_q + 20'd1 == job_i.rows_o;
  assign last_batch = batch_count_q + 12'd1 == job_i.batch;
  assign last_o     = last_inner && last_outer && last_batch;
  assign address_o  = at_q;
  assign slope_o    = slope_q;

  // The largest power of two. Rows that see all of their width do not stagger any more.
  logic [1:0] fitting, most;
  assign fitting = (left >= 20'd8) ? 2'd3 : (left >= 20'd4) ? 2'd2 : (left >= 20'd2) ? 2'd1 : 2'd0;
  assign most    = (fitting < job_i.group) ? fitting : job_i.group;
  assign group_o = (job_i.stagger && visible_q + 25'(4'd1 << most) > 25'(job_i.dim) + 25'd1) ? 2'd0 : most;

  always_ff @(posedge clk_i) begin
    if (load_i) begin
      at_q          <= {36'(job_i.other), 36'(job_i.dst), 36'(job_i.src)};
      outer_q       <= {36'(job_i.other), 36'(job_i.dst), 36'(job_i.src)};
      batch_q       <= {36'(job_i.other), 36'(job_i.dst), 36'(job_i.src)};
      inner_count_q <= '0;
      outer_count_q <= '0;
      batch_count_q <= '0;
      slope_q       <= '0;
      batch_slope_q <= '0;
      visible_q     <= 25'(job_i.visible);
    end else if (next_i && !last_inner) begin
      inner_count_q <= inner_count_q + 20'(rows);
      slope_q       <= slope_q + 24'd1;  // rows with slopes are alone
      if (job_i.stagger && !visible_q[24]) visible_q <= visible_q + 25'(rows);
      for (int k = 0; k < 3; k++) at_q[k] <= at_q[k] + (inner_step[k] << group_o);
    end else if (next_i && !last_outer) begin
      inner_count_q <= '0;
      outer_count_q <= outer_count_q + 20'd1;
      slope_q       <= batch_slope_q;
      if (!visible_q[24]) visible_q <= visible_q + 25'd1;
      for (int k = 0; k < 3; k++) begin
        at_q[k]    <= outer_q[k] + outer_step[k];
        outer_q[k] <= outer_q[k] + outer_step[k];
      end
    end else if (next_i) begin
      inner_count_q <= '0;
      outer_count_q <= '0;
      batch_count_q <= batch_count_q + 12'd1;
      slope_q       <= slope_q + 24'd1;
      batch_slope_q <= slope_q + 24'd1;
      visible_q     <= 25'(job_i.visible);
      for (int k = 0; k < 3; k++) begin
        at_q[k]    <= batch_q[k] + batch_step[k];
        outer_q[k] <= batch_q[k] + batch_step[k];
        batch_q[k] <= batch_q[k] + batch_step[k];
      end
    end
  end

  logic [24:0] visible;
  assign visible = visible_q + (job_i.stagger ? 25'(rows - 4'd1) : 25'd0);
  assign seen_o  = (visible < 25'(job_i.dim)) ? visible[23:0] : job_i.dim;
  assign first_o = (job_i.window != 0 && seen_o > job_i.window) ? seen_o - job_i.window : 24'd0;

  logic unused_job;
  assign unused_job = &{1'b0, job_i};

endmodule
