// A queue of ROWS words, a power of two, as `fifo` is: the first word shows itself a cycle after it went in. Who fills
// it knows that there is room. A deep one is a memory with registers behind it and the FRONT oldest words before it, in
// registers' reach: a word that comes to be one of them is fetched from the memory, long before it is the first.
module row_buffer #(
    parameter int unsigned WIDTH = 8,
    parameter int unsigned ROWS = 64
) (
    input  logic             clk_i,
    input  logic             rst_i,
    input  logic             valid_i,
    input  logic [WIDTH-1:0] data_i,
    output logic             valid_o,
    input  logic             ready_i,
    output logic [WIDTH-1:0] data_o
);

  localparam int unsigned SHALLOW = 64, FRONT = 16, LATENCY = 2;  // cycles of the memory

  if (ROWS <= SHALLOW) begin : g_shallow
    logic unused_ready;
    fifo #(.WIDTH(WIDTH), .DEPTH(ROWS)) u_rows (
        .clk_i, .rst_i, .valid_i, .ready_o(unused_ready), .data_i, .valid_o, .ready_i, .data_o);
  end else begin : g_deep
    localparam int unsigned BITS = $clog2(ROWS), PLACE = $clog2(FRONT);

    logic [BITS:0]    in_q, out_q, held;
    logic             take, direct, moves;
    logic [WIDTH-1:0] memory [ROWS];
    logic [WIDTH-1:0] straight [FRONT], moved [FRONT];  // of the front: what came when there was room, what was fetched
    logic [FRONT-1:0] moved_q;                          // which of the two
    logic [LATENCY-1:0][WIDTH-1:0] read_q;
    logic [LATENCY-1:0][PLACE-1:0] place_q;
    logic [LATENCY-1:0]            read_valid_q;
    logic [BITS-1:0]               entering;
    logic [PLACE-1:0]              in_place, out_place;

    assign held      = in_q - out_q;
    assign take      = valid_o && ready_i;
    assign direct    = held < (BITS + 1)'(FRONT) || (held == (BITS + 1)'(FRONT) && take);
    assign moves     = take && held > (BITS + 1)'(FRONT);
    assign entering  = out_q[BITS-1:0] + BITS'(FRONT);
    assign in_place  = in_q[PLACE-1:0];
    assign out_place = out_q[PLACE-1:0];
    assign valid_o   = in_q != out_q;
    assign data_o    = moved_q[out_place] ? moved[out_place] : straight[out_place];

    always_ff @(posedge clk_i) begin
      if (valid_i && direct) straight[in_place] <= data_i;
      if (valid_i && !direct) memory[in_q[BITS-1:0]] <= data_i;
      read_q  <= {read_q[0], memory[entering]};
      place_q <= {place_q[0], out_place};
      if (read_valid_q[LATENCY-1]) moved[place_q[LATENCY-1]] <= read_q[LATENCY-1];
      if (valid_i && direct) moved_q[in_place] <= 1'b0;
      if (moves) moved_q[out_place] <= 1'b1;
      if (rst_i) begin
        in_q         <= '0;
        out_q        <= '0;
        read_valid_q <= '0;
      end else begin
        in_q         <= in_q + (BITS + 1)'(valid_i);
        out_q        <= out_q + (BITS + 1)'(take);
        read_valid_q <= {read_valid_q[0], moves};
      end
    end
  end

endmodule
