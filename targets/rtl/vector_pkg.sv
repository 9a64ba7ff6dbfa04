// What the vector engine's micro-steps and row programs are made of (doc/hardware.md, "Vector engine"); the programs themselves
// are in dlavm_vector_pkg. Rows are worked on in groups of 1, 2, 4 or 8, a group in strips of STRIP chunks of LANES elements,
// the same share of a strip for each row. A step takes one chunk a cycle through one unit of every lane; a step is done for all
// chunks of a strip before the next one begins, which hides the units' latency.
package vector_pkg;

  // Lint sees one module at a time, and none uses all of them.
  // verilator lint_off UNUSEDPARAM
  localparam int unsigned STRIP = 16;     // chunks of a strip
  localparam int unsigned GROUP = 8;      // rows of a group at most
  // Cycles from the issue of a step to the first issue that may use its result: of a temporary or scalar, of an output.
  localparam int unsigned LATENCY = 8;
  localparam int unsigned OUT_LATENCY = 11;
  localparam int unsigned SUM_LATENCY = 4;  // to the next addition to the same accumulator
  localparam logic [31:0] LOWEST = 32'hff7f_ffff;
  // verilator lint_on UNUSEDPARAM

  // SELECT: a where it comes behind `previous` in the order of TOPK, else LOWEST. FIND: notes the first element equal to b.
  typedef enum logic [3:0] {MUL, ADD, MAX, SELECT, FIND, EXP, ROOT, RECIP, POSITION} unit_e;

  // Loaded strips L0..L3 (fp16; SWAP0: L0 with the lanes of a pair exchanged), temporaries V0, V1, ACC (fp32), the lane's
  // number, slope and base of the activation of L0.
  typedef enum logic [3:0] {A_L0, A_L1, A_L3, A_SWAP0, A_V0, A_ACC, A_LANE, A_SLOPE, A_BASE} a_e;

  // C1..C3: L1..L3 of which the rows of a group have one in common. X2, X3: C2, C3 with every element twice. OUT: the strip as
  // it was last rounded and sent off. FRACTION: of the activation of L0. The others are scalars: results of each row S0, S1, of
  // rows that are worked on alone S2, S3, immediates, log2e, TOPK's power of this rank.
  typedef enum logic [4:0] {B_L0, B_L1, B_C1, B_C2, B_C3, B_X2, B_X3, B_V0, B_V1, B_ACC, B_OUT, B_FRACTION,
                            B_S0, B_S1, B_S2, B_S3, B_IMM0, B_IMM1, B_LOG2E, B_POWER} b_e;

  // S0..S2 and POWER take lane 0 and go to V0 as well. WORD: lane 0 to the queue of 32-bit results.
  typedef enum logic [3:0] {TO_NONE, TO_V0, TO_V1, TO_ACC, TO_S0, TO_S1, TO_S2, TO_POWER, TO_OUT, TO_WORD} to_e;

  // NEG: b changes its sign; ALT: on even lanes. MASK: elements outside of the row are neutral in a reduction, +0 in an
  // output. COPY, ZERO: the output is a's fp16 as loaded, +0. INIT, LATCH: TOPK's `previous`. INDEX: the word is what FIND
  // found. SLOPE: S1 is a's first two halves. FIRST_RANK: the scalar keeps its value in later ranks.
  typedef enum logic [3:0] {PLAIN, NEG, ALT, MASK, COPY, ZERO, INIT, LATCH, INDEX,
                            SLOPE, FIRST_RANK} special_e;

  typedef struct packed {
    unit_e    unit;
    a_e       a;
    b_e       b;
    to_e      to;
    special_e special;
    logic     last;  // of its program
  } step_t;

  // Groups of rows are worked on phase by phase. PASS: all strips of a range. TREE_ADD, TREE_MAX: the virtual lanes become one. ONCE: a
  // program on one chunk. LOOP: goes back while there are ranks left. DONE: the next group.
  typedef enum logic [2:0] {PASS, TREE_ADD, TREE_MAX, ONCE, LOOP, DONE} phase_e;

  // ROW: [0, dim). HALF: [0, rot/2). ROT: [0, rot). TAIL: [rot, dim). FRONT: [0, block), SEEN: [block, seen),
  // BACK: [seen, width) of a softmax, block being the block of 32 of the first visible position.
  typedef enum logic [2:0] {ROW, HALF, ROT, TAIL, FRONT, SEEN, BACK} range_e;

  // ELEMENTS: at dst. BOTH: at dst and rot/2 elements behind it. FIRST, SECOND: a word at the first, second word address.
  typedef enum logic [2:0] {NOTHING, ELEMENTS, BOTH, FIRST, SECOND} store_e;

  typedef struct packed {
    phase_e     kind;
    logic [6:0] program_;  // its first step
    range_e     range;
    logic [3:0] loads;     // streams
    logic [3:0] common;    // those that the rows of a group share
    store_e     store;
    logic       drain;     // a PASS that needs a scalar made just before; ONCE and the trees wait in any case
    logic [2:0] back;      // phases that LOOP goes back
  } phase_t;

  // How rows may be worked on in turns: never; at will; each with accumulators of its own.
  typedef enum logic [1:0] {ALONE, MAPS, REDUCES} groups_e;

  // A command's fields under names that all commands share; what a command does not have is zero (counts: one). Addresses
  // and strides count units of 16 bytes.
  typedef struct packed {
    logic [6:0]  row;          // first phase of its row program
    logic [1:0]  group;        // log2 of the rows that are worked on in turns
    logic        stagger;      // an inner row sees one position more than the one before
    logic        permute;
    logic        empty;        // does nothing
    logic        bad;          // a field is out of range
    logic [11:0] batch;
    logic [19:0] rows_o;
    logic [19:0] rows_i;
    logic [23:0] dim;          // elements of a row
    logic [31:0] src, src_b, src_so, src_si;
    logic [31:0] dst, dst_b, dst_so, dst_si;
    logic [31:0] other, other_so, other_si;  // second row set: b, table
    logic [31:0] vector0;      // gamma, slopes, index
    logic [31:0] vector1;      // beta
    logic [31:0] first;        // 32-bit results: recip, dst of ARGMAX, ids
    logic [31:0] second;       // weights
    logic [31:0] immediate0;   // inv_n, scale
    logic [31:0] immediate1;   // eps
    logic [15:0] rot;
    logic [23:0] visible;
    logic [23:0] window;
    logic [19:0] limit;
    logic [7:0]  k;
    logic [1:0]  act_slot;
  } job_t;

  // What the sequencer hands to the loader, to the lanes and to the storer. Addresses count halves (2 bytes).
  typedef struct packed {
    logic [38:0] address;
    logic [11:0] count;
    logic [1:0]  stream;
    logic [3:0]  chunk;   // of the strip, where it goes
    logic        last;    // of its strip
  } load_t;

  typedef struct packed {
    logic [6:0]  start;     // first step
    logic        tree;      // instead of a program
    logic        tree_max;
    logic        loads;     // waits for a loaded strip and frees it
    logic        drain;     // waits for the results of what went before
    logic        first;     // strip of its pass
    logic [1:0]  group;     // log2 of the rows
    logic        stagger;   // as in job_t
    logic [2:0]  behind;    // elements of the range behind this strip, or GROUP - 1 if more
    logic [11:0] count;     // elements of a row; of the last one, where they stagger
    logic [4:0]  skip;      // elements at the start that are outside of the row
    logic [23:0] number;    // of the first element
    logic [24:0] position;  // of the first element, less the last visible one: two's complement
    logic [7:0]  rank;
  } work_t;

  // One chunk of one step on its way through the lanes.
  typedef struct packed {
    step_t       step;
    logic [2:0]  row;       // of the group
    logic [3:0]  column;    // chunk of the row's share of the strip
    logic [3:0]  chunk;     // of the strip
    logic [3:0]  slot_a;    // of the accumulators
    logic [3:0]  slot_b;
    logic        fresh_a;   // no element went there yet
    logic        forward_a; // the sum comes from the unit, SUM_LATENCY cycles after it was issued
    logic        fresh_b;
    logic [2:0]  rotate;    // lane i takes b of lane i + 2^(rotate-1); 0: its own
    logic [11:0] count;     // elements of this row
    logic [4:0]  skip;      // as in work_t
    logic [23:0] number;    // of the chunk's first element
    logic [24:0] position;
    logic [7:0]  rank;
  } issue_t;

  typedef struct packed {
    logic        word;  // 32 bits instead of elements
    logic [38:0] address;
    logic [11:0] count;
  } write_t;

endpackage
