// The registers with the control of a run, and the scalar arithmetic; the bench plays the front end.
module control_bench (
    input  logic             clk_i,
    input  logic             rst_i,
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
    input  logic             run_busy_i,
    input  logic             run_quiet_i,
    input  logic             run_finished_i,
    input  logic [3:0]       run_code_i,
    input  logic [31:0]      run_pc_i,
    input  logic             run_counted_i,
    output logic             run_start_o,
    output logic             run_reset_o,
    output logic             run_core_reset_o,
    output logic             run_abort_o,
    input  logic             alu_start_i,
    input  logic [3:0]       alu_fn_i,
    input  logic [31:0]      alu_a_i,
    input  logic [31:0]      alu_b_i,
    output logic             alu_done_o,
    output logic             alu_error_o,
    output logic [31:0]      alu_result_o
);

  logic             start, reset;
  logic [31:0]      unused_program, unused_words, unused_channel, error_pc;
  logic [7:0][31:0] unused_arg;
  logic [2:0]       status;
  logic [3:0]       error;
  logic [63:0]      cycles, commands, bytes_read, bytes_written;

  register_file #(.ID(32'h1234_abcd)) u_registers (
      .clk_i, .rst_i, .aw_valid_i, .aw_ready_o, .aw_addr_i, .w_valid_i, .w_ready_o, .w_data_i, .b_valid_o, .b_ready_i,
      .ar_valid_i, .ar_ready_o, .ar_addr_i, .r_valid_o, .r_ready_i, .r_data_o,
      .start_o(start), .reset_o(reset), .start_taken_i(run_start_o), .reset_taken_i(run_reset_o),
      .program_o(unused_program), .program_words_o(unused_words), .arg_o(unused_arg), .status_i(status),
      .error_i(error), .error_pc_i(error_pc), .cycles_i(cycles), .commands_i(commands), .bytes_read_i(bytes_read),
      .bytes_written_i(bytes_written), .channel_o(unused_channel), .profile_i(32'd0));

  run_control u_control (
      .clk_i, .rst_i, .start_i(start), .reset_i(reset), .start_taken_o(run_start_o), .reset_taken_o(run_reset_o),
      .core_reset_o(run_core_reset_o), .abort_o(run_abort_o), .busy_i(run_busy_i), .quiet_i(run_quiet_i),
      .finished_i(run_finished_i), .error_i(dlavm_isa_pkg::error_e'(run_code_i)), .error_pc_i(run_pc_i),
      .counted_i(run_counted_i), .bytes_valid_i(run_counted_i), .read_i(64'h1_0000_0001), .written_i(64'd3),
      .status_o(status), .error_o(error), .error_pc_o(error_pc), .cycles_o(cycles), .commands_o(commands),
      .bytes_read_o(bytes_read), .bytes_written_o(bytes_written));

  scalar_alu u_alu (.clk_i, .rst_i, .start_i(alu_start_i), .fn_i(alu_fn_i), .a_i(alu_a_i), .b_i(alu_b_i),
                    .done_o(alu_done_o), .error_o(alu_error_o), .result_o(alu_result_o));

endmodule
