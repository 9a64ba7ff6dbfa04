// What makes a stream a program: scalar registers, SCALAR, loops, calls. A core whose target has no scalars is built
// without it.
//
// `execute_i` marks the cycle of a command, whose words are steady until `done_o`: the same cycle but for SCALAR.
// With `done_o` come its error, or where the program goes on if that is not behind the command. What is refused has
// changed nothing.
module control_flow #(
    parameter int unsigned UNITS = 2,
    parameter int unsigned SPACES = 1,
    parameter logic [SPACES-1:0][mem_pkg::ADDRESS_WIDTH-1:0] BASE = '0,
    parameter logic [SPACES-1:0][mem_pkg::ADDRESS_WIDTH-1:0] CAPACITY = {SPACES{40'h1000}},
    parameter int unsigned SCALARS = 32,
    parameter int unsigned LOOP_DEPTH = 8,
    parameter int unsigned CALL_DEPTH = 8,
    localparam int unsigned WIDTH = UNITS * mem_pkg::UNIT_BITS
) (
    input  logic                  clk_i,
    input  logic                  rst_i,
    input  logic                  start_i,         // of the program
    input  logic [dlavm_isa_pkg::REG_ARG_COUNT-1:0][31:0] arg_i,  // s1, s2, .. at the start
    input  logic [4:0]            scalar_i,
    output logic [31:0]           scalar_value_o,

    input  logic                  execute_i,
    input  logic [7:0]            opcode_i,
    input  logic                  skip_i,          // by its predicate: what LOOP needs to know
    input  logic [31:0]           word_i [dlavm_isa_pkg::MAX_PAYLOAD_WORDS],
    input  logic [33:0]           next_i,          // word behind the command
    output logic                  done_o,
    output dlavm_isa_pkg::error_e error_o,
    output logic                  jump_o,
    output logic [33:0]           target_o,
    output logic                  nested_o,        // inside a loop or a call

    // read client of SCALAR load
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

  import dlavm_isa_pkg::*;

  // -- Scalars ------------------------------------------------------------------------------------------------------

  typedef enum logic [1:0] {IDLE, ALU, LOAD, LOADING} state_e;
  state_e      state_q;
  logic [31:0] scalars_q [SCALARS];
  logic [3:0]  fn;
  logic [4:0]  rd, ra;
  logic [31:0] scalar_a, scalar_b, alu_result;
  logic        alu_done, alu_error, loads, load_in_memory, refused;
  logic [63:0] load_addr;
  assign fn        = word_i[SCALAR_FN_WORD][SCALAR_FN_LSB+:SCALAR_FN_BITS];
  assign rd        = word_i[SCALAR_RD_WORD][SCALAR_RD_LSB+:SCALAR_RD_BITS];
  assign ra        = word_i[SCALAR_RA_WORD][SCALAR_RA_LSB+:SCALAR_RA_BITS];
  assign scalar_a  = scalars_q[ra];
  assign scalar_b  = word_i[SCALAR_B_WORD];
  assign loads     = fn == SCALAR_FN_LOAD;
  assign load_addr = {28'd0, scalar_a, 4'd0} + {30'd0, scalar_b, 2'd0};

  assign scalar_value_o = scalars_q[scalar_i];

  scalar_alu u_alu (.clk_i, .rst_i, .start_i(execute_i && opcode_i == OP_SCALAR), .fn_i(fn), .a_i(scalar_a),
                    .b_i(scalar_b), .done_o(alu_done), .error_o(alu_error), .result_o(alu_result));

  range_check #(.SPACES(SPACES), .BASE(BASE), .CAPACITY(CAPACITY)) u_load (
      .addr_i(load_addr), .bytes_i(64'd4), .ok_o(load_in_memory));

  assign rd_req_valid_o = state_q == LOAD;
  assign rd_req_addr_o  = {load_addr[mem_pkg::ADDRESS_WIDTH-1:4], 4'd0};
  assign rd_req_units_o = 24'd1;
  assign rd_ready_o     = state_q == LOADING;

  // Only the first unit of an answer was asked for.
  logic unused_answer;
  assign unused_answer = ^{rd_data_i, rd_last_i};

  // -- Loops and calls ----------------------------------------------------------------------------------------------

  localparam int unsigned LOOP_WIDTH = $clog2(LOOP_DEPTH + 1);
  localparam int unsigned CALL_WIDTH = $clog2(CALL_DEPTH + 1);
  typedef struct packed {
    logic [33:0] body;
    logic [4:0]  rd;
    logic [31:0] count;
    logic [31:0] index;
  } loop_t;

  loop_t                 loops_q [LOOP_DEPTH];
  logic [33:0]           calls_q [CALL_DEPTH];
  logic [LOOP_WIDTH-1:0] loop_count_q;
  logic [CALL_WIDTH-1:0] call_count_q;
  loop_t                 innermost;
  logic [31:0]           trips, again;
  logic [4:0]            counter;  // register
  logic                  enters, repeats;
  assign innermost = loops_q[mem_pkg::index_width(LOOP_DEPTH)'(loop_count_q - LOOP_WIDTH'(1))];
  assign again     = innermost.index + 32'd1;
  assign trips     = word_i[LOOP_COUNT_WORD];
  assign counter   = word_i[LOOP_RD_WORD][LOOP_RD_LSB+:LOOP_RD_BITS];
  assign enters    = !skip_i && $signed(trips) > 0;
  assign repeats   = again < innermost.count;
  assign nested_o  = loop_count_q != 0 || call_count_q != 0;

  // -- Commands -----------------------------------------------------------------------------------------------------

  function automatic logic absent(input logic [4:0] register);
    absent = 6'(register) >= 6'(SCALARS);
  endfunction

  error_e refusal;
  assign refused = refusal != ERROR_NONE;

  always_comb begin
    refusal  = ERROR_NONE;
    jump_o   = 1'b0;
    target_o = next_i;
    case (opcode_i)
      OP_LOOP: begin
        if (!skip_i && absent(counter)) refusal = ERROR_FIELD_RANGE;
        else if (enters && loop_count_q == LOOP_WIDTH'(LOOP_DEPTH)) refusal = ERROR_STACK;
        jump_o   = !enters;
        target_o = next_i + 34'(word_i[LOOP_BODY_WORD]);
      end
      OP_ENDLOOP: begin
        if (loop_count_q == 0) refusal = ERROR_STACK;
        jump_o   = repeats;
        target_o = innermost.body;
      end
      OP_CALL: begin
        if (call_count_q == CALL_WIDTH'(CALL_DEPTH)) refusal = ERROR_STACK;
        jump_o   = 1'b1;
        target_o = 34'(word_i[CALL_TARGET_WORD]);
      end
      OP_RET: begin
        if (call_count_q == 0) refusal = ERROR_STACK;
        jump_o   = 1'b1;
        target_o = calls_q[mem_pkg::index_width(CALL_DEPTH)'(call_count_q - CALL_WIDTH'(1))];
      end
      default:  // SCALAR
        if (absent(rd) || absent(ra)) refusal = ERROR_FIELD_RANGE;
        else if (loads && !load_in_memory) refusal = ERROR_BAD_ADDRESS;
    endcase
  end

  always_comb begin
    error_o = execute_i ? refusal : ERROR_NONE;
    done_o  = execute_i && (opcode_i != OP_SCALAR || refused);
    if (state_q == ALU) begin
      done_o = alu_done;
      if (alu_error) error_o = ERROR_SCALAR;
    end
    if (state_q == LOADING) begin
      done_o = rd_valid_i;
      if (rd_error_i) error_o = ERROR_BUS;
    end
  end

  task automatic set_scalar(input logic [4:0] index, input logic [31:0] value);
    if (index != 0) scalars_q[index] <= value;
  endtask

  task automatic execute();
    case (opcode_i)
      OP_LOOP: if (enters) begin
        loops_q[mem_pkg::index_width(LOOP_DEPTH)'(loop_count_q)] <=
            '{next_i, counter, trips, 32'd0};
        loop_count_q <= loop_count_q + LOOP_WIDTH'(1);
        set_scalar(counter, '0);
      end
      OP_ENDLOOP: if (repeats) begin
        loops_q[mem_pkg::index_width(LOOP_DEPTH)'(loop_count_q - LOOP_WIDTH'(1))].index <= again;
        set_scalar(innermost.rd, again);
      end else begin
        loop_count_q <= loop_count_q - LOOP_WIDTH'(1);
      end
      OP_CALL: begin
        calls_q[mem_pkg::index_width(CALL_DEPTH)'(call_count_q)] <= next_i;
        call_count_q <= call_count_q + CALL_WIDTH'(1);
      end
      OP_RET: call_count_q <= call_count_q - CALL_WIDTH'(1);
      default: state_q <= loads ? LOAD : ALU;  // SCALAR
    endcase
  endtask

  always_ff @(posedge clk_i) begin
    if (execute_i && !refused) execute();
    if (state_q == LOAD && rd_req_ready_i) state_q <= LOADING;
    if (state_q != IDLE && done_o) begin
      state_q <= IDLE;
      if (error_o == ERROR_NONE) set_scalar(rd, (state_q == ALU) ? alu_result : rd_data_i[32*load_addr[3:2]+:32]);
    end
    if (start_i) begin
      loop_count_q <= '0;
      call_count_q <= '0;
      for (int i = 0; i < int'(SCALARS); i++)
        scalars_q[i] <= (i >= 1 && i <= int'(REG_ARG_COUNT)) ? arg_i[$clog2(REG_ARG_COUNT)'(i-1)] : '0;
    end
    if (rst_i) state_q <= IDLE;
  end

endmodule
