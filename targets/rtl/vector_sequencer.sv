// Walks a command: groups of rows, the phases of their row program, the strips of a phase; and hands loads, work and writes of
// every strip to their queues. It runs ahead as far as these go; nothing that it does depends on data, but for the check of PERMUTE's
// indices.
module vector_sequencer #(
    parameter int unsigned LANES = 8
) (
    input  logic                  clk_i,
    input  logic                  rst_i,

    input  logic                  cmd_valid_i,
    output logic                  cmd_ready_o,
    input  vector_pkg::job_t      cmd_i,
    output logic                  done_o,
    output logic                  error_o,
    output dlavm_isa_pkg::error_e error_code_o,

    input  logic                  bus_error_i,    // sticky until `start_o`
    input  logic                  bad_index_i,    // the same
    input  logic                  idle_i,         // of all below, and of memory
    output logic                  start_o,
    output vector_pkg::job_t      job_o,

    output logic                  load_valid_o,
    input  logic                  load_ready_i,
    output vector_pkg::load_t     load_o,
    output logic                  work_valid_o,
    input  logic                  work_ready_i,
    output vector_pkg::work_t     work_o,
    output logic                  write_valid_o,
    input  logic                  write_ready_i,
    output vector_pkg::write_t    write_o,

    output logic                  permute_valid_o,
    input  logic                  permute_ready_i,
    output logic                  permute_check_o,
    output logic [35:0]           permute_index_o,
    output logic [35:0]           permute_src_o
);

  import dlavm_vector_pkg::*;
  import vector_pkg::*;
  import dlavm_isa_pkg::ERROR_NONE, dlavm_isa_pkg::ERROR_FIELD_RANGE, dlavm_isa_pkg::ERROR_GATHER_INDEX,
         dlavm_isa_pkg::ERROR_BUS;

  localparam logic [23:0] STRIP_ELEMENTS = 24'(STRIP * LANES);

  typedef enum logic [2:0] {IDLE, CHECK, CHECKED, BEGIN, STRIPS, NEXT, FINISH} state_e;
  state_e           state_q;
  job_t             job_q;
  logic [6:0]       phase_q;
  phase_t           phase_now;
  logic [7:0]       rank_q;
  logic [1:0]       group;  // log2 of its rows
  logic [2:0]       last_of_group;
  logic [2:0][35:0] row;
  logic [23:0]      slope, seen, first, block;
  logic             last_row, next_row;
  assign job_o       = job_q;
  assign phase_now   = phases(phase_q);
  assign cmd_ready_o = state_q == IDLE;
  assign start_o     = cmd_ready_o && cmd_valid_i;
  assign next_row    = state_q == NEXT;
  assign block       = {first[23:5], 5'd0};
  assign last_of_group = 3'((4'd1 << group) - 4'd1);

  vector_rows u_rows (
      .clk_i, .job_i(start_o ? cmd_i : job_q), .load_i(start_o), .next_i(next_row), .group_o(group), .address_o(row),
      .slope_o(slope), .seen_o(seen), .first_o(first), .last_o(last_row));

  // The range of the phase.
  logic [23:0] from, to;
  always_comb begin
    case (phase_now.range)
      HALF:    {from, to} = {24'd0, 24'(job_q.rot >> 1)};
      ROT:     {from, to} = {24'd0, 24'(job_q.rot)};
      TAIL:    {from, to} = {24'(job_q.rot), job_q.dim};
      FRONT:   {from, to} = {24'd0, block};
      SEEN:    {from, to} = {block, seen};
      BACK:    {from, to} = {seen, job_q.dim};
      default: {from, to} = {24'd0, job_q.dim};
    endcase
  end

  // The strip: what of it has still to be handed over, stream by stream, of every stream row by row.
  logic [23:0] at_q, end_q, rest, share;
  logic [11:0] count, used_q;
  logic [3:0]  loads_q, loads_left;
  logic [1:0]  writes_q, writes_left, writes_new;
  logic        work_q, work_left, first_q, pass, taken, strip_done, phase_done, stream_done, write_done;
  logic [1:0]  stream;
  logic [2:0]  load_row_q, write_row_q;
  assign pass  = phase_now.kind == PASS;
  assign rest  = end_q - at_q;
  assign share = STRIP_ELEMENTS >> group;  // of a row
  assign count = (rest < share) ? rest[11:0] : share[11:0];
  always_comb begin
    stream = 2'd3;
    for (int k = 2; k >= 0; k--) if (loads_q[k]) stream = 2'(k);
    case (phase_now.store)
      NOTHING: writes_new = 2'b00;
      BOTH:    writes_new = 2'b11;
      default: writes_new = 2'b01;
    endcase
  end

  assign load_valid_o    = state_q == STRIPS && loads_q != 0;
  assign write_valid_o   = state_q == STRIPS && writes_q != 0;
  assign work_valid_o    = state_q == STRIPS && work_q && !job_q.permute;
  assign permute_valid_o = (state_q == STRIPS && work_q && job_q.permute) || state_q == CHECK;
  assign taken           = job_q.permute ? permute_ready_i : work_ready_i;
  assign stream_done     = load_row_q == last_of_group || phase_now.common[stream];
  assign write_done      = write_row_q == last_of_group;
  assign loads_left      = (load_ready_i && stream_done) ? loads_q & (loads_q - 4'd1) : loads_q;
  assign writes_left     = (write_ready_i && write_done) ? writes_q & (writes_q - 2'd1) : writes_q;
  assign work_left       = work_q && !taken;
  assign strip_done      = loads_left == 0 && writes_left == 0 && !work_left;
  assign phase_done      = strip_done && rest <= share;

  // Where the streams of the strip lie, in halves. Of interleaved pairs the table has one element for two.
  logic [35:0] src_q, other_q, dst_q;  // of the row whose turn it is
  logic [38:0] half, strip_at, table_at;
  logic        norm, pairs, rotary;
  assign norm     = job_q.row < R_SOFTMAX;
  assign pairs    = job_q.row == R_PAIRS;
  assign rotary   = pairs || job_q.row == R_HALVES;
  assign half     = 39'(job_q.rot >> 1);
  assign strip_at = 39'(at_q);
  assign table_at = {other_q, 3'd0} + (pairs ? strip_at >> 1 : strip_at);
  always_comb begin
    load_o.stream = stream;
    load_o.chunk  = 4'({load_row_q, 4'd0} >> group);
    load_o.last   = stream_done && loads_q == 4'd1 << stream;
    load_o.count  = (pairs && stream[1]) ? count >> 1 : count;
    case (stream)
      2'd0:    load_o.address = {src_q, 3'd0} + strip_at;
      2'd1:
        if (rotary) load_o.address = {src_q, 3'd0} + strip_at + half;
        else load_o.address = {norm ? 36'(job_q.vector0) : other_q, 3'd0} + strip_at;
      2'd2:    load_o.address = rotary ? table_at : {36'(job_q.vector1), 3'd0} + strip_at;
      default: load_o.address = rotary ? table_at + half : {36'(job_q.vector0), 3'd0} + {14'd0, slope, 1'b0};
    endcase
  end

  logic [23:0] after;
  logic [2:0]  behind;
  assign after  = rest - 24'(count);
  assign behind = (after < 24'(GROUP - 1)) ? after[2:0] : 3'(GROUP - 1);
  assign work_o = '{
      start: phase_now.program_, tree: phase_now.kind == TREE_ADD || phase_now.kind == TREE_MAX,
      tree_max: phase_now.kind == TREE_MAX, loads: phase_now.loads != 0, drain: first_q && (phase_now.drain || !pass),
      first: first_q && pass, group: group, stagger: job_q.stagger, behind: behind, count: (pass || phase_now.kind == ONCE) ? count : used_q,
      skip: (first_q && phase_now.range == SEEN) ? first[4:0] : 5'd0, number: at_q,
      position: 25'(at_q) + 25'd1 - 25'(seen), rank: rank_q};

  // Writes: elements at the strip's place, words one after the other.
  logic [38:0] first_word_q, second_word_q, element_at;
  assign element_at = {dst_q, 3'd0} + strip_at;
  always_comb begin
    write_o.word  = phase_now.store == FIRST || phase_now.store == SECOND;
    write_o.count = write_o.word ? 12'd2 : count;
    case (phase_now.store)
      FIRST:   write_o.address = first_word_q;
      SECOND:  write_o.address = second_word_q;
      default: write_o.address = writes_q[0] ? element_at : element_at + half;
    endcase
  end

  // PERMUTE: a strip's indices, four to a unit.
  assign permute_check_o = state_q == CHECK;
  assign permute_index_o = 36'(job_q.vector0) + 36'(at_q >> 2);
  assign permute_src_o   = row[0];

  logic [1:0] idle_count_q;  // a write just taken may not show in `idle_i` yet
  logic       finished, failed;
  assign finished     = state_q == FINISH && idle_count_q == '1;
  assign failed       = job_q.bad || bad_index_i || bus_error_i;
  assign done_o       = finished && !failed;
  assign error_o      = finished && failed;
  assign error_code_o = !error_o ? ERROR_NONE : job_q.bad ? ERROR_FIELD_RANGE :
                        bus_error_i ? ERROR_BUS : ERROR_GATHER_INDEX;

  always_ff @(posedge clk_i) begin
    idle_count_q <= (state_q == FINISH && idle_i) ? idle_count_q + 2'(idle_count_q != '1) : 2'd0;
    if (rst_i) begin
      state_q <= IDLE;
    end else begin
      case (state_q)
        IDLE: begin
          job_q         <= cmd_i;
          phase_q       <= cmd_i.row;
          rank_q        <= '0;
          at_q          <= '0;
          end_q         <= cmd_i.dim;
          first_word_q  <= {4'd0, cmd_i.first, 3'd0};
          second_word_q <= {4'd0, cmd_i.second, 3'd0};
          if (cmd_valid_i) state_q <= (cmd_i.bad || cmd_i.empty) ? FINISH : cmd_i.permute ? CHECK : BEGIN;
        end
        CHECK:
          if (permute_ready_i) begin
            at_q <= at_q + STRIP_ELEMENTS;
            if (rest <= STRIP_ELEMENTS) state_q <= CHECKED;
          end
        CHECKED: if (permute_ready_i) state_q <= (bad_index_i || bus_error_i) ? FINISH : BEGIN;
        BEGIN: begin
          first_q  <= 1'b1;
          loads_q  <= phase_now.loads;
          writes_q <= writes_new;
          work_q   <= 1'b1;
          load_row_q  <= '0;
          write_row_q <= '0;
          {other_q, dst_q, src_q} <= row;
          at_q     <= pass ? from : 24'd0;
          end_q    <= pass ? to : 24'd2;  // the two halves of a slope
          case (phase_now.kind)
            PASS:    if (from < to) state_q <= STRIPS; else phase_q <= phase_q + 7'd1;
            LOOP: begin
              rank_q  <= (rank_q + 8'd1 == job_q.k) ? 8'd0 : rank_q + 8'd1;
              phase_q <= (rank_q + 8'd1 == job_q.k) ? phase_q + 7'd1 : phase_q - 7'(phase_now.back);
            end
            DONE:    state_q <= NEXT;
            default: state_q <= STRIPS;
          endcase
        end
        STRIPS: begin
          loads_q  <= loads_left;
          writes_q <= writes_left;
          work_q   <= work_left;
          if (load_valid_o && load_ready_i) begin
            load_row_q <= stream_done ? 3'd0 : load_row_q + 3'd1;
            src_q      <= stream_done ? row[0] : src_q + 36'(job_q.src_si);
            other_q    <= stream_done ? row[2] : other_q + 36'(job_q.other_si);
          end
          if (write_valid_o && write_ready_i) begin
            write_row_q <= write_done ? 3'd0 : write_row_q + 3'd1;
            dst_q       <= write_done ? row[1] : dst_q + 36'(job_q.dst_si);
          end
          if (phase_now.store == FIRST && writes_q != 0 && write_ready_i) first_word_q <= first_word_q + 39'd2;
          if (phase_now.store == SECOND && writes_q != 0 && write_ready_i) second_word_q <= second_word_q + 39'd2;
          if (strip_done) begin
            if (first_q && pass && phase_now.loads != 0) used_q <= count;
            first_q  <= 1'b0;
            loads_q  <= phase_now.loads;
            writes_q <= writes_new;
            work_q   <= 1'b1;
            at_q     <= at_q + share;
            if (phase_done) begin
              phase_q <= phase_q + 7'd1;
              state_q <= BEGIN;
            end
          end
        end
        NEXT: begin
          phase_q <= job_q.row;
          state_q <= last_row ? FINISH : BEGIN;
        end
        default: if (finished) state_q <= IDLE;
      endcase
    end
  end

  logic unused_job;
  assign unused_job = &{1'b0, job_q};

endmodule
