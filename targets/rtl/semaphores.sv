// How many signals of each semaphore have been given, and for each queue whether its wait may pass: when more signals
// were given than the waits before it take. So waits of one semaphore pass in the order of the program, whatever
// queues they stand in. `ahead_*` asks the same for a wait that is not yet the first of its queue.
module semaphores #(
    parameter int unsigned COUNT = 32,
    localparam int unsigned QUEUES = core_pkg::QUEUES
) (
    input  logic                    clk_i,
    input  logic                    clear_i,
    input  logic [QUEUES-1:0]       signal_i,
    input  logic [QUEUES-1:0][4:0]  sem_i,     // signalled, or waited for
    input  logic [QUEUES-1:0][31:0] ticket_i,
    output logic [QUEUES-1:0]       pass_o,
    input  logic [4:0]              ahead_sem_i,
    input  logic [31:0]             ahead_ticket_i,
    output logic                    ahead_pass_o
);

  logic [COUNT-1:0][31:0] given_q;

  always_comb begin
    for (int q = 0; q < int'(QUEUES); q++) pass_o[q] = $signed(given_q[sem_i[q]] - ticket_i[q]) > 0;
    ahead_pass_o = $signed(given_q[ahead_sem_i] - ahead_ticket_i) > 0;
  end

  always_ff @(posedge clk_i) begin
    for (int s = 0; s < int'(COUNT); s++) begin
      logic [31:0] more;
      more = '0;
      for (int q = 0; q < int'(QUEUES); q++) more = more + 32'(signal_i[q] && sem_i[q] == 5'(s));
      given_q[s] <= clear_i ? '0 : given_q[s] + more;
    end
  end

endmodule
