// The ids of a GATHER, one after the other: whether each is below the limit and its table row inside of a memory
// space, or, in the second pass, the rows' addresses. Four cycles an id.
module gather_ids #(
    parameter int unsigned UNITS = 2,
    parameter int unsigned SPACES = 1,
    parameter logic [SPACES-1:0][mem_pkg::ADDRESS_WIDTH-1:0] BASE = '0,
    parameter logic [SPACES-1:0][mem_pkg::ADDRESS_WIDTH-1:0] CAPACITY = {SPACES{40'h1000}},
    localparam int unsigned WIDTH = UNITS * mem_pkg::UNIT_BITS
) (
    input  logic                              clk_i,
    input  logic                              rst_i,
    input  logic                              start_i,
    input  logic                              check_i,       // steady: only look
    input  logic [31:0]                       ids_i,         // steady until idle, in the instruction set's units
    input  logic [31:0]                       table_i,
    input  logic [31:0]                       table_so_i,
    input  logic [19:0]                       rows_i,        // at least 1
    input  logic [19:0]                       dim_i,
    input  logic [23:0]                       limit_i,
    output logic                              idle_o,
    output logic                              bad_index_o,   // since the start
    output logic                              bad_address_o,
    output logic                              bus_error_o,
    output logic                              row_valid_o,
    input  logic                              row_ready_i,
    output logic [mem_pkg::ADDRESS_WIDTH-1:0] row_addr_o,

    output logic                              rd_req_valid_o,
    input  logic                              rd_req_ready_i,
    output logic [mem_pkg::ADDRESS_WIDTH-1:0] rd_req_addr_o,
    output logic [mem_pkg::COUNT_WIDTH-1:0]   rd_req_units_o,
    input  logic                              rd_valid_i,
    output logic                              rd_ready_o,
    input  logic [WIDTH-1:0]                  rd_data_i,
    input  logic                              rd_error_i
);

  localparam int unsigned IDS = UNITS * 4;  // of a beat
  localparam int unsigned ID_WIDTH = $clog2(IDS);

  typedef enum logic [2:0] {IDLE, ASK, READ, MULTIPLY, ADD, GIVE} state_e;
  state_e state_q;

  logic [19:0]         left_q;
  logic [ID_WIDTH-1:0] place_q;
  logic [31:0]         id, id_q;
  logic [63:0]         product_q, addr_q;
  logic                in_space, last;

  assign idle_o         = state_q == IDLE;
  assign rd_req_valid_o = state_q == ASK;
  assign rd_req_addr_o  = {4'd0, ids_i, 4'd0};
  assign rd_req_units_o = (24'(rows_i) + 24'd3) >> 2;
  assign last           = left_q == 20'd1;
  // A beat is taken with its last id, and stays until then.
  assign rd_ready_o     = state_q == READ && (last || place_q == ID_WIDTH'(IDS - 1));
  assign id             = rd_data_i[32*place_q+:32];
  assign row_valid_o    = state_q == GIVE && !check_i;
  assign row_addr_o     = addr_q[mem_pkg::ADDRESS_WIDTH-1:0];

  range_check #(.SPACES(SPACES), .BASE(BASE), .CAPACITY(CAPACITY)) u_range (
      .addr_i(addr_q), .bytes_i({43'd0, dim_i, 1'b0}), .ok_o(in_space));

  always_ff @(posedge clk_i) begin
    case (state_q)
      IDLE: if (start_i) begin
        state_q       <= ASK;
        left_q        <= rows_i;
        place_q       <= '0;
        bad_index_o   <= 1'b0;
        bad_address_o <= 1'b0;
        bus_error_o   <= 1'b0;
      end
      ASK: if (rd_req_ready_i) state_q <= READ;
      READ: if (rd_valid_i) begin
        id_q        <= id;
        place_q     <= place_q + ID_WIDTH'(1);
        bad_index_o <= bad_index_o || id >= 32'(limit_i);
        bus_error_o <= bus_error_o || rd_error_i;
        state_q     <= MULTIPLY;
      end
      MULTIPLY: begin
        product_q <= 64'(id_q) * 64'(table_so_i);
        state_q   <= ADD;
      end
      ADD: begin
        addr_q  <= (64'(table_i) + product_q) << 4;
        state_q <= GIVE;
      end
      default: if (check_i || row_ready_i) begin
        bad_address_o <= bad_address_o || !in_space;
        left_q        <= left_q - 20'd1;
        state_q       <= last ? IDLE : READ;
      end
    endcase
    if (rst_i) state_q <= IDLE;
  end

endmodule
