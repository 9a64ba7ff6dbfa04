// The rows of a command, one after the other: inner rows, outer rows, batches. `load_i` goes to the first; `next_i` to the
// next. Addresses count units; `slope_o` and the softmax bounds belong to the row.
module vector_rows (
    input  logic              clk_i,
    input  vector_pkg::job_t  job_i,
    input  logic              load_i,
    input  logic              next_i,
    output logic [2:0][35:0]  address_o,  // src, dst, other
    output logic [23:0]       slope_o,    // number of the row's slope
    output logic [23:0]       seen_o,     // softmax: positions up to the row's own
    output logic [23:0]       first_o,    // the first visible one
    output logic              last_o
);

  logic [2:0][35:0] at_q, outer_q, batch_q, inner_step, outer_step, batch_step;
  logic [11:0]      inner_count_q, batch_count_q;
  logic [19:0]      outer_count_q;
  logic [23:0]      slope_q, batch_slope_q;
  logic [24:0]      visible_q;
  logic             last_inner, last_outer, last_batch;

  assign inner_step = {36'(job_i.other_si), 36'(job_i.dst_si), 36'(job_i.src_si)};
  assign outer_step = {36'(job_i.other_so), 36'(job_i.dst_so), 36'(job_i.src_so)};
  assign batch_step = {36'd0, 36'(job_i.dst_b), 36'(job_i.src_b)};
  assign last_inner = inner_count_q + 12'd1 == job_i.rows_i;
  assign last_outer = outer_count_q + 20'd1 == job_i.rows_o;
  assign last_batch = batch_count_q + 12'd1 == job_i.batch;
  assign last_o     = last_inner && last_outer && last_batch;
  assign address_o  = at_q;
  assign slope_o    = slope_q;

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
      inner_count_q <= inner_count_q + 12'd1;
      slope_q       <= slope_q + 24'd1;
      for (int k = 0; k < 3; k++) at_q[k] <= at_q[k] + inner_step[k];
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

  assign seen_o  = (visible_q < 25'(job_i.dim)) ? visible_q[23:0] : job_i.dim;
  assign first_o = (job_i.window != 0 && seen_o > job_i.window) ? seen_o - job_i.window : 24'd0;

  logic unused_job;
  assign unused_job = &{1'b0, job_i};

endmodule
