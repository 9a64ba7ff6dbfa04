// PERMUTE: reads the indices of a strip, then one element after the other. Indices are checked in jobs of their own, before
// anything is written. Elements are requested ahead, one a cycle; a chunk goes out when its last element has come.
module vector_permute #(
    parameter int unsigned UNITS = 2,
    parameter int unsigned LANES = 8
) (
    input  logic                    clk_i,
    input  logic                    rst_i,
    input  logic                    clear_i,    // forget bad indices

    input  logic                    job_valid_i,
    output logic                    job_ready_o,
    input  logic                    check_i,    // compare with the limit, move nothing
    input  logic [35:0]             index_i,    // unit of the strip's first index
    input  logic [35:0]             src_i,      // unit of the source row
    input  logic [11:0]             count_i,
    input  logic [19:0]             limit_i,

    output logic                    rd_req_valid_o,
    input  logic                    rd_req_ready_i,
    output logic [39:0]             rd_req_addr_o,
    output logic [23:0]             rd_req_units_o,
    input  logic                    rd_valid_i,
    output logic                    rd_ready_o,
    input  logic [UNITS*128-1:0]    rd_data_i,

    output logic                    out_valid_o,
    input  logic                    out_ready_i,
    output logic [LANES-1:0][15:0]  out_o,

    output logic                    bad_o       // sticky: an index was at or past the limit
);

  localparam int unsigned BEAT = UNITS * 4;                          // indices of a beat
  localparam int unsigned MOST = vector_pkg::STRIP * LANES / BEAT;   // beats of a strip
  localparam int unsigned BEAT_BITS = (MOST > 1) ? $clog2(MOST) : 1;
  localparam int unsigned FLIGHTS = 16;

  typedef enum logic [1:0] {IDLE, ASK, INDICES, ELEMENTS} state_e;
  state_e      state_q;
  logic        check_q;
  logic [35:0] index_at_q, src_q;
  logic [11:0] count_q, asked_q, came_q;
  logic        take, last_take;
  assign job_ready_o = state_q == IDLE;

  // The indices of the strip.
  logic [BEAT-1:0][19:0]  indices [MOST];
  logic [BEAT-1:0][19:0]  low;
  logic [BEAT-1:0]        bad;
  logic [BEAT-1:0][19:0]  row;
  logic [19:0]            element;
  for (genvar i = 0; i < int'(BEAT); i++) begin : g_index
    assign low[i] = rd_data_i[32*i+:20];
    assign bad[i] = came_q + 12'(i) < count_q && rd_data_i[32*i+:32] >= 32'(limit_i);
  end
  assign row     = indices[BEAT_BITS'(asked_q / 12'(BEAT))];
  assign element = row[$clog2(BEAT)'(asked_q % 12'(BEAT))];

  // Requests: the indices, then a unit for each element; its place in the unit waits for the data.
  logic       place_ready, place_valid, asking;
  logic [2:0] place;
  assign asking         = state_q == ELEMENTS && asked_q != count_q && place_ready;
  assign rd_req_valid_o = state_q == ASK || asking;
  assign rd_req_addr_o  = {(state_q == ASK) ? index_at_q : src_q + 36'(element[19:3]), 4'd0};
  assign rd_req_units_o = (state_q == ASK) ? (24'(count_q) + 24'd3) >> 2 : 24'd1;
  fifo #(.WIDTH(3), .DEPTH(FLIGHTS)) u_places (
      .clk_i, .rst_i, .valid_i(asking && rd_req_ready_i), .ready_o(place_ready), .data_i(element[2:0]),
      .valid_o(place_valid), .ready_i(state_q == ELEMENTS && take), .data_o(place));

  // Elements gather in a chunk, which goes out before the next one begins.
  localparam int unsigned LANE_BITS = $clog2(LANES);
  logic [LANES-1:0][15:0] chunk_q;
  logic                   full_q;
  assign take        = rd_valid_i && (state_q == INDICES ||
                       (state_q == ELEMENTS && place_valid && (!full_q || out_ready_i)));
  assign last_take   = came_q + ((state_q == INDICES) ? 12'(BEAT) : 12'd1) >= count_q;
  assign rd_ready_o  = take;
  assign out_valid_o = full_q;
  assign out_o       = chunk_q;

  always_ff @(posedge clk_i) begin
    if (state_q == INDICES && take) indices[BEAT_BITS'(came_q / 12'(BEAT))] <= low;
    if (state_q == ELEMENTS && take) chunk_q[came_q[LANE_BITS-1:0]] <= rd_data_i[32'(place)*16+:16];
    if (rst_i) begin
      state_q <= IDLE;
      full_q  <= 1'b0;
      bad_o   <= 1'b0;
    end else begin
      if (clear_i) bad_o <= 1'b0;
      if (state_q == ELEMENTS && take) full_q <= last_take || came_q[LANE_BITS-1:0] == '1;
      else if (out_ready_i) full_q <= 1'b0;
      case (state_q)
        IDLE:
          if (job_valid_i) begin
            state_q    <= ASK;
            check_q    <= check_i;
            index_at_q <= index_i;
            src_q      <= src_i;
            count_q    <= count_i;
            asked_q    <= '0;
            came_q     <= '0;
          end
        ASK: if (rd_req_ready_i) state_q <= INDICES;
        INDICES:
          if (take) begin
            came_q <= last_take ? 12'd0 : came_q + 12'(BEAT);
            if (check_q && bad != 0) bad_o <= 1'b1;
            if (last_take) state_q <= check_q ? IDLE : ELEMENTS;
          end
        default: begin
          if (asking && rd_req_ready_i) asked_q <= asked_q + 12'd1;
          if (take) came_q <= came_q + 12'd1;
          if (take && last_take) state_q <= IDLE;
        end
      endcase
    end
  end

  logic unused_row;
  assign unused_row = &{1'b0, rd_data_i};

endmodule
