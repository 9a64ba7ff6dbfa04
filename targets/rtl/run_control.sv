// Start, reset and the counters of a run: between the registers and the front end.
//
// A reset waits until the engines have ended what they run and memory has answered everything, so that no
// transaction is cut off; then everything but memory and the AXI slave is reset for a cycle. A start after a `bus` error
// resets the core in the same way first, but for the registers: an engine may have stopped in the middle.
//
// A launch, of one command that the host wrote, is a run of its own, but the counters go on from the last start.
module run_control (
    input  logic                  clk_i,
    input  logic                  rst_i,
    input  logic                  start_i,         // requests
    input  logic                  reset_i,
    input  logic                  launch_i,
    output logic                  start_taken_o,   // these also start the front end
    output logic                  launch_taken_o,
    output logic                  reset_taken_o,   // also resets the registers
    output logic                  core_reset_o,
    output logic                  abort_o,
    input  logic                  busy_i,          // the front end
    input  logic                  quiet_i,         // nothing is on its way to or from memory
    input  logic                  finished_i,
    input  dlavm_isa_pkg::error_e error_i,
    input  logic [31:0]           error_pc_i,
    input  logic                  counted_i,
    input  logic                  bytes_valid_i,
    input  logic [63:0]           read_i,
    input  logic [63:0]           written_i,
    output logic [2:0]            status_o,
    output logic [3:0]            error_o,
    output logic [31:0]           error_pc_o,
    output logic [63:0]           cycles_o,
    output logic [63:0]           commands_o,
    output logic [63:0]           bytes_read_o,
    output logic [63:0]           bytes_written_o
);

  logic       running_q, done_q, failed_q, stopped, broken, recover, wanted, taken;
  logic [1:0] recovered_q;  // the reset takes two cycles from here to the core

  assign stopped        = !busy_i && !running_q;
  assign broken         = error_o == dlavm_isa_pkg::ERROR_BUS;
  assign wanted         = (start_i || launch_i) && !reset_i && stopped;
  assign recover        = wanted && broken && quiet_i && recovered_q == 0;
  assign taken          = wanted && (!broken || recovered_q[1]);
  assign abort_o        = reset_i;
  assign reset_taken_o  = reset_i && stopped && quiet_i;
  assign core_reset_o   = reset_taken_o || recover;
  assign start_taken_o  = taken && start_i;
  assign launch_taken_o = taken && !start_i;
  assign status_o       = {failed_q, done_q, running_q};

  always_ff @(posedge clk_i) begin
    recovered_q <= (rst_i || taken) ? '0 : recovered_q == 0 ? {1'b0, recover} : 2'b10;
    if (rst_i || reset_taken_o || taken) begin
      running_q  <= taken && !rst_i;
      done_q     <= 1'b0;
      failed_q   <= 1'b0;
      error_o    <= '0;
      error_pc_o <= '0;
      if (rst_i || !launch_taken_o) begin
        cycles_o        <= '0;
        commands_o      <= '0;
        bytes_read_o    <= '0;
        bytes_written_o <= '0;
      end
    end else if (running_q) begin
      cycles_o   <= cycles_o + 64'd1;
      commands_o <= commands_o + 64'(counted_i);
      if (bytes_valid_i) begin
        bytes_read_o    <= bytes_read_o + read_i;
        bytes_written_o <= bytes_written_o + written_i;
      end
      if (finished_i) begin
        running_q  <= 1'b0;
        done_q     <= error_i == dlavm_isa_pkg::ERROR_NONE;
        failed_q   <= error_i != dlavm_isa_pkg::ERROR_NONE;
        error_o    <= error_i;
        error_pc_o <= error_pc_i;
      end
    end
  end

endmodule
