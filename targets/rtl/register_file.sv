// The registers of a core that fetches a stream (targets/isa/registers.yaml), on an AXI4-Lite slave. A write is taken
// when address and data are both there; an access answers in the next cycle. What does not exist reads as zero and
// ignores writes. CONTROL reads as what was written until the core has taken it.
module register_file #(
    parameter logic [31:0] ID = '0
) (
    input  logic             clk_i,
    input  logic             rst_i,
    // AXI4-Lite
    input  logic             aw_valid_i,
    output logic             aw_ready_o,
    input  logic [11:0]      aw_addr_i,
    input  logic             w_valid_i,
    output logic             w_ready_o,
    input  logic [31:0]      w_data_i,
    output logic             b_valid_o,
    input  logic             b_ready_i,
    input  logic             ar_valid_i,
    output logic             ar_ready_o,
    input  logic [11:0]      ar_addr_i,
    output logic             r_valid_o,
    input  logic             r_ready_i,
    output logic [31:0]      r_data_o,
    // core
    output logic             start_o,         // requests, until the core takes them
    output logic             reset_o,
    input  logic             start_taken_i,
    input  logic             reset_taken_i,   // everything here but ID becomes zero
    output logic [31:0]      program_o,
    output logic [31:0]      program_words_o,
    output logic [7:0][31:0] arg_o,
    input  logic [2:0]       status_i,        // busy, done, error from bit 0 up
    input  logic [3:0]       error_i,
    input  logic [31:0]      error_pc_i,
    input  logic [63:0]      cycles_i,
    input  logic [63:0]      commands_i,
    input  logic [63:0]      bytes_read_i,
    input  logic [63:0]      bytes_written_i,
    output logic [31:0]      channel_o,
    input  logic [31:0]      profile_i        // what profile_counters has at the address that is read
);

  import dlavm_isa_pkg::*;

  logic        write, read;
  logic [11:0] address;
  logic [31:0] value;

  assign write      = aw_valid_i && w_valid_i && !b_valid_o;
  assign aw_ready_o = write;
  assign w_ready_o  = write;
  assign read       = ar_valid_i && !r_valid_o;
  assign ar_ready_o = read;
  assign address    = {aw_addr_i[11:2], 2'd0};

  always_ff @(posedge clk_i) begin
    if (read) r_data_o <= value;
    if (start_taken_i) start_o <= 1'b0;
    if (write) begin
      case (address)
        REG_CONTROL: begin
          start_o <= w_data_i[0];
          reset_o <= w_data_i[1];
        end
        REG_PROGRAM: program_o <= w_data_i;
        REG_PROGRAM_WORDS: program_words_o <= w_data_i;
        REG_CHANNEL: channel_o <= w_data_i;
        default: for (int i = 0; i < 8; i++) if (address == REG_ARG + 12'(4 * i)) arg_o[i] <= w_data_i;
      endcase
    end
    if (rst_i || reset_taken_i) begin
      reset_o         <= 1'b0;
      program_o       <= '0;
      program_words_o <= '0;
      channel_o       <= '0;
      arg_o           <= '0;
    end
    if (rst_i) begin
      start_o   <= 1'b0;
      b_valid_o <= 1'b0;
      r_valid_o <= 1'b0;
    end else begin
      b_valid_o <= write || (b_valid_o && !b_ready_i);
      r_valid_o <= read || (r_valid_o && !r_ready_i);
    end
  end

  logic [1:0] unused_low;
  assign unused_low = aw_addr_i[1:0] | ar_addr_i[1:0];

  always_comb begin
    case ({ar_addr_i[11:2], 2'd0})
      REG_ID: value = ID;
      REG_STATUS: value = 32'(status_i);
      REG_ERROR: value = 32'(error_i);
      REG_ERROR_PC: value = error_pc_i;
      REG_CONTROL: value = {30'd0, reset_o, start_o};
      REG_PROGRAM: value = program_o;
      REG_PROGRAM_WORDS: value = program_words_o;
      REG_CYCLES: value = cycles_i[31:0];
      REG_CYCLES + 12'd4: value = cycles_i[63:32];
      REG_COMMANDS: value = commands_i[31:0];
      REG_COMMANDS + 12'd4: value = commands_i[63:32];
      REG_BYTES_READ: value = bytes_read_i[31:0];
      REG_BYTES_READ + 12'd4: value = bytes_read_i[63:32];
      REG_BYTES_WRITTEN: value = bytes_written_i[31:0];
      REG_BYTES_WRITTEN + 12'd4: value = bytes_written_i[63:32];
      REG_CHANNEL: value = channel_o;
      default: begin
        value = profile_i;
        for (int i = 0; i < 8; i++) if ({ar_addr_i[11:2], 2'd0} == REG_ARG + 12'(4 * i)) value = arg_o[i];
      end
    endcase
  end

endmodule
