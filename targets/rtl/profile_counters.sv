// What channels and engines do while a program runs: CHANNEL_* and ENGINE_BUSY of targets/isa/registers.yaml. It only
// watches. A cycle of a channel is busy when a beat passes, either way; stalled when none does though the core asks for
// something or an answer is owed; idle otherwise. Everything is counted two cycles late, which no register access sees.
module profile_counters #(
    parameter int unsigned CHANNELS = 2,
    parameter int unsigned PORT_BYTES = 16,
    parameter int unsigned WIDTH = 48  // of a counter
) (
    input  logic                        clk_i,
    input  logic                        rst_i,
    input  logic                        clear_i,    // a run begins
    input  logic                        run_i,      // this cycle counts
    input  logic [63:0]                 cycles_i,   // that counted
    input  logic [core_pkg::QUEUES-1:0] running_i,  // a command of the queue's engine
    input  logic [CHANNELS-1:0]         ar_valid_i,
    input  logic [CHANNELS-1:0]         ar_ready_i,
    input  logic [CHANNELS-1:0][7:0]    ar_len_i,
    input  logic [CHANNELS-1:0]         r_valid_i,
    input  logic [CHANNELS-1:0]         r_ready_i,
    input  logic [CHANNELS-1:0]         aw_valid_i,
    input  logic [CHANNELS-1:0]         aw_ready_i,
    input  logic [CHANNELS-1:0]         w_valid_i,
    input  logic [CHANNELS-1:0]         w_ready_i,
    input  logic [CHANNELS-1:0]         b_valid_i,
    input  logic [CHANNELS-1:0]         b_ready_i,
    input  logic [31:0]                 channel_i,  // whose counters are read
    input  logic [11:0]                 address_i,
    output logic [31:0]                 value_o     // 0 for registers that are not here
);

  import dlavm_isa_pkg::*;

  localparam int unsigned BEATS_WIDTH = 24, WRITES_WIDTH = 16;  // owed at once; a port holds fewer

  logic clear_q, run_q;
  always_ff @(posedge clk_i) begin
    clear_q <= rst_i || clear_i;
    run_q   <= run_i && !rst_i;
  end

  logic [CHANNELS-1:0][WIDTH-1:0] read_q, written_q, busy_q, stalled_q;

  for (genvar c = 0; c < int'(CHANNELS); c++) begin : g_channel
    logic                    read_q1, written_q1, asked_q1;
    logic [BEATS_WIDTH-1:0]  beats_q;   // of reads, owed
    logic [WRITES_WIDTH-1:0] writes_q;  // responses, owed
    logic                    r, aw, b;

    assign r  = r_valid_i[c] && r_ready_i[c];
    assign aw = aw_valid_i[c] && aw_ready_i[c];
    assign b  = b_valid_i[c] && b_ready_i[c];

    always_ff @(posedge clk_i) begin
      read_q1    <= r;
      written_q1 <= w_valid_i[c] && w_ready_i[c];
      asked_q1   <= ar_valid_i[c] || aw_valid_i[c] || w_valid_i[c] || beats_q != 0 || writes_q != 0;
      if (rst_i) begin
        beats_q  <= '0;
        writes_q <= '0;
      end else begin
        beats_q  <= beats_q - BEATS_WIDTH'(r) +
                    ((ar_valid_i[c] && ar_ready_i[c]) ? BEATS_WIDTH'(ar_len_i[c]) + BEATS_WIDTH'(1) : '0);
        writes_q <= writes_q + WRITES_WIDTH'(aw) - WRITES_WIDTH'(b);
      end
    end

    always_ff @(posedge clk_i) begin
      if (clear_q) begin
        read_q[c]    <= '0;
        written_q[c] <= '0;
        busy_q[c]    <= '0;
        stalled_q[c] <= '0;
      end else if (run_q) begin
        read_q[c]    <= read_q[c] + WIDTH'(read_q1);
        written_q[c] <= written_q[c] + WIDTH'(written_q1);
        busy_q[c]    <= busy_q[c] + WIDTH'(read_q1 || written_q1);
        stalled_q[c] <= stalled_q[c] + WIDTH'(asked_q1 && !read_q1 && !written_q1);
      end
    end
  end

  logic [core_pkg::QUEUES-1:0]            running_q;
  logic [core_pkg::QUEUES-1:0][WIDTH-1:0] engine_q;

  always_ff @(posedge clk_i) begin
    running_q <= running_i;
    for (int q = 0; q < int'(core_pkg::QUEUES); q++)
      engine_q[q] <= clear_q ? '0 : engine_q[q] + WIDTH'(run_q && running_q[q]);
  end

  // The chosen channel's counters; the choice stands long before it is read.
  logic [63:0] read, written, busy, stalled;
  logic        there;
  assign there = channel_i < 32'(CHANNELS);

  always_ff @(posedge clk_i) begin
    read    <= '0;
    written <= '0;
    busy    <= '0;
    stalled <= '0;
    for (int c = 0; c < int'(CHANNELS); c++) begin
      if (channel_i == 32'(c)) begin
        read    <= 64'(read_q[c]) * 64'(PORT_BYTES);
        written <= 64'(written_q[c]) * 64'(PORT_BYTES);
        busy    <= 64'(busy_q[c]);
        stalled <= 64'(stalled_q[c]);
      end
    end
  end

  function automatic logic [31:0] half(input logic [63:0] value, input logic high);
    half = high ? value[63:32] : value[31:0];
  endfunction

  localparam logic [11:0] ENGINE_STEP = 12'd8;  // bytes of an engine's pair in ENGINE_BUSY

  logic        high;
  logic [11:0] pair;
  assign high = address_i[2];
  assign pair = {address_i[11:3], 3'd0};

  always_comb begin
    case (pair)
      REG_CHANNEL_READ: value_o = half(read, high);
      REG_CHANNEL_WRITTEN: value_o = half(written, high);
      REG_CHANNEL_BUSY: value_o = half(busy, high);
      REG_CHANNEL_STALLED: value_o = half(stalled, high);
      REG_CHANNEL_IDLE: value_o = there ? half(cycles_i - busy - stalled, high) : '0;
      REG_ENGINE_BUSY + ENGINE_STEP * 12'(ENGINE_MATRIX): value_o = half(64'(engine_q[core_pkg::MATRIX]), high);
      REG_ENGINE_BUSY + ENGINE_STEP * 12'(ENGINE_VECTOR): value_o = half(64'(engine_q[core_pkg::VECTOR]), high);
      REG_ENGINE_BUSY + ENGINE_STEP * 12'(ENGINE_STORE): value_o = half(64'(engine_q[core_pkg::STORE]), high);
      default: value_o = '0;
    endcase
  end

  logic [1:0] unused_low;
  assign unused_low = address_i[1:0];

endmodule
