// Brings the words of the program, one after the other from where it was told to jump. Reads ahead, within the
// program; what is on its way at a jump is dropped. A word a cycle.
module fetch #(
    parameter int unsigned UNITS = 2,
    localparam int unsigned WIDTH = UNITS * mem_pkg::UNIT_BITS
) (
    input  logic                              clk_i,
    input  logic                              rst_i,
    input  logic [31:0]                       program_i,  // its start in units, steady from the jump on
    input  logic [31:0]                       words_i,    // its length
    input  logic                              jump_i,
    input  logic [33:0]                       pc_i,       // word offset; past the end nothing comes
    output logic                              valid_o,
    input  logic                              ready_i,
    output logic [31:0]                       word_o,
    output logic                              error_o,    // the memory's

    output logic                              rd_req_valid_o,
    input  logic                              rd_req_ready_i,
    output logic [mem_pkg::ADDRESS_WIDTH-1:0] rd_req_addr_o,
    output logic [mem_pkg::COUNT_WIDTH-1:0]   rd_req_units_o,
    input  logic                              rd_valid_i,
    output logic                              rd_ready_o,
    input  logic [WIDTH-1:0]                  rd_data_i,
    input  logic                              rd_last_i,
    input  logic                              rd_error_i
);

  localparam int unsigned BLOCK = (UNITS > 16) ? UNITS : 16;  // units of a request
  localparam int unsigned AHEAD = 2;                          // requests
  localparam int unsigned PLACE_WIDTH = $clog2(UNITS * 4);

  logic [31:0]            unit_q, end_unit, left;
  logic [PLACE_WIDTH-1:0] place_q;
  logic [1:0]             asked_q, drop_q;
  logic                   active_q, asked, answered, dropping;

  assign end_unit       = 32'((33'(words_i) + 33'd3) >> 2);
  assign left           = end_unit - unit_q;
  assign dropping       = drop_q != 0;
  assign rd_req_valid_o = active_q && !dropping && unit_q < end_unit && asked_q < 2'(AHEAD);
  assign rd_req_addr_o  = {4'd0, program_i + unit_q, 4'd0};
  assign rd_req_units_o = (left < BLOCK) ? left[23:0] : 24'(BLOCK);
  assign asked          = rd_req_valid_o && rd_req_ready_i;
  assign answered       = rd_valid_i && rd_ready_o && rd_last_i;

  assign valid_o    = rd_valid_i && !dropping;
  assign word_o     = rd_data_i[32*place_q+:32];
  assign error_o    = rd_error_i;
  assign rd_ready_o = dropping || (ready_i && place_q == PLACE_WIDTH'(UNITS * 4 - 1));

  always_ff @(posedge clk_i) begin
    if (jump_i) begin
      unit_q  <= pc_i[33:2];
      place_q <= PLACE_WIDTH'(pc_i[1:0]);
    end else begin
      if (asked) unit_q <= unit_q + 32'(BLOCK);
      if (valid_o && ready_i) place_q <= place_q + PLACE_WIDTH'(1);
    end
    if (rst_i) begin
      active_q <= 1'b0;
      asked_q  <= '0;
      drop_q   <= '0;
    end else begin
      asked_q <= asked_q + 2'(asked) - 2'(answered);
      if (jump_i) begin
        active_q <= pc_i < {2'd0, words_i};
        drop_q   <= asked_q + 2'(asked) - 2'(answered);
      end else if (dropping) begin
        drop_q <= drop_q - 2'(answered);
      end
    end
  end

endmodule
