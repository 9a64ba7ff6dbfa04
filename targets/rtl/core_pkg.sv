// What the front end hands to the queues of the engines.
package core_pkg;

  import dlavm_isa_pkg::*;

  typedef enum logic [1:0] {
    ENTRY_COMMAND = 2'd0,
    ENTRY_SIGNAL = 2'd1,
    ENTRY_WAIT = 2'd2
  } entry_kind_e;

  typedef struct packed {
    entry_kind_e kind;
    logic [4:0]  sem;     // of a signal or a wait
    logic [31:0] ticket;  // a wait's: how many signals of the semaphore earlier waits take
    logic        fetch;   // a wait: what comes behind it must not be fetched before (engine `load`)
    logic [31:0] order;   // of commands in the program's run
    logic [31:0] pc;      // word offset in the program
    logic [7:0]  opcode;
    logic [MAX_PAYLOAD_WORDS-1:0][31:0] words;
  } entry_t;

  // Lint sees one module at a time, and none uses all of them.
  // verilator lint_off UNUSEDPARAM
  // Queues: LINEAR's fetch of weights is part of the matrix engine, so `load` waits and signals in its queue.
  localparam int unsigned QUEUES = 3;
  localparam int unsigned MATRIX = 0, VECTOR = 1, STORE = 2;
  // verilator lint_on UNUSEDPARAM

  function automatic logic [1:0] queue_of(input engine_e engine);
    case (engine)
      ENGINE_VECTOR: queue_of = 2'(VECTOR);
      ENGINE_STORE: queue_of = 2'(STORE);
      default: queue_of = 2'(MATRIX);
    endcase
  endfunction

endpackage
