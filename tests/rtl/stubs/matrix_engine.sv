// Stands in the place of the matrix engine where a bench does not need it: every command is an illegal opcode.
// It looks at nothing that it is given.
// verilator lint_off UNUSEDSIGNAL
// verilator lint_off UNUSEDPARAM
module matrix_engine #(
    parameter int unsigned UNITS = 2,
    parameter int unsigned PORT_BYTES = 16,
    parameter int unsigned ACTIVATION_ELEMENTS = 8192,
    parameter int unsigned ACCUMULATORS = 4096
) (
    input  logic                        clk_i,
    input  logic                        rst_i,
    input  logic                        cmd_valid_i,
    output logic                        cmd_ready_o,
    input  logic [7:0]                  cmd_opcode_i,
    input  logic [31:0]                 cmd_word_i [dlavm_isa_pkg::LINEAR_WORDS],
    output logic                        done_o,
    output logic                        error_o,
    output logic [3:0]                  error_code_o,
    output logic [2:0]                  rd_req_valid_o,
    input  logic [2:0]                  rd_req_ready_i,
    output logic [2:0][39:0]            rd_req_addr_o,
    output logic [2:0][23:0]            rd_req_units_o,
    input  logic [2:0]                  rd_valid_i,
    output logic [2:0]                  rd_ready_o,
    input  logic [2:0][UNITS*128-1:0]   rd_data_i,
    input  logic [2:0]                  rd_last_i,
    input  logic [2:0]                  rd_error_i,
    output logic                        wr_req_valid_o,
    input  logic                        wr_req_ready_i,
    output logic [39:0]                 wr_req_addr_o,
    output logic [23:0]                 wr_req_units_o,
    output logic                        wr_valid_o,
    input  logic                        wr_ready_i,
    output logic [UNITS*128-1:0]        wr_data_o,
    output logic [UNITS*16-1:0]         wr_strb_o,
    input  logic                        wr_idle_i,
    input  logic                        wr_error_i,
    output logic [1:0]                  act_slot_o,
    output logic [UNITS-1:0][10:0]      act_index_o,
    input  logic [UNITS-1:0][63:0]      act_pair_i
);

  assign cmd_ready_o    = !error_o;
  assign done_o         = 1'b0;
  assign error_code_o   = dlavm_isa_pkg::ERROR_ILLEGAL_OPCODE;
  assign rd_req_valid_o = '0;
  assign rd_req_addr_o  = '0;
  assign rd_req_units_o = '0;
  assign rd_ready_o     = '1;
  assign wr_req_valid_o = 1'b0;
  assign wr_req_addr_o  = '0;
  assign wr_req_units_o = '0;
  assign wr_valid_o     = 1'b0;
  assign wr_data_o      = '0;
  assign wr_strb_o      = '0;
  assign act_slot_o     = '0;
  assign act_index_o    = '0;
  always_ff @(posedge clk_i) error_o <= !rst_i && cmd_valid_i && cmd_ready_o;

endmodule
