// The vector engine's micro-steps and row programs (doc/hardware.md, "Vector engine"). A row is worked on in strips of STRIP
// chunks of LANES elements. A step takes one chunk a cycle through one unit of every lane; a step is done for all chunks of
// a strip before the next one begins, which hides the units' latency.
package vector_pkg;

  // Lint sees one module at a time, and none uses all of them.
  // verilator lint_off UNUSEDPARAM
  localparam int unsigned VIRTUAL = 128;  // virtual lanes of a reduction
  localparam int unsigned STRIP = 16;     // chunks of a strip
  // Cycles from the issue of a step to the first issue that may use its result: of a temporary or scalar, of an output.
  localparam int unsigned LATENCY = 8;
  localparam int unsigned OUT_LATENCY = 11;
  localparam logic [31:0] LOWEST = 32'hff7f_ffff;
  // verilator lint_on UNUSEDPARAM

  // SELECT: a where it comes behind `previous` in the order of TOPK, else LOWEST. FIND: notes the first element equal to b.
  typedef enum logic [3:0] {MUL, ADD, MAX, SELECT, FIND, EXP, ROOT, RECIP, POSITION} unit_e;

  // Loaded strips L0..L3 (fp16; SWAP0: L0 with the lanes of a pair exchanged), temporaries V0, V1, ACC (fp32), the lane's
  // number, slope and base of the activation of L0.
  typedef enum logic [3:0] {A_L0, A_L1, A_L3, A_SWAP0, A_V0, A_ACC, A_LANE, A_SLOPE, A_BASE} a_e;

  // X2, X3: L2, L3 with every element twice. OUT: the strip as it was last rounded and sent off. FRACTION: of the activation
  // of L0. The others are scalars: results of rows S0..S3, immediates, log2e, TOPK's power of this rank.
  typedef enum logic [4:0] {B_L0, B_L1, B_L2, B_L3, B_X2, B_X3, B_V0, B_V1, B_ACC, B_OUT, B_FRACTION,
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

  // First steps of the programs.
  typedef enum logic [6:0] {
    P_SQUARES = 0, P_SUM = 2, P_DEVIATIONS = 3, P_MEAN = 6, P_RSQRT = 7, P_RMS = 10, P_RMS_BETA = 12, P_LAYER = 15,
    P_LAYER_BETA = 18, P_MAX = 22, P_MAX_SLOPE = 23, P_KEEP = 28, P_EXP = 29, P_EXP_SLOPE = 33, P_ZERO = 41, P_RECIP = 42,
    P_SLOPE = 43, P_HALVES = 44, P_PAIRS = 50, P_COPY = 53, P_ACT = 54, P_ADD = 56, P_MUL = 57, P_SCALE = 58, P_FIND = 59,
    P_INDEX = 60, P_INIT = 61, P_SELECT = 62, P_KEEP_FIRST = 64, P_RANK = 66, P_POWERS = 72, P_SHARE = 76, P_TOTAL = 77,
    P_WEIGHT = 78
  } program_e;

  function automatic step_t step(input unit_e unit, input a_e a, input b_e b, input to_e to,
                                 input special_e special = PLAIN, input logic last = 1'b0);
    step = '{unit: unit, a: a, b: b, to: to, special: special, last: last};
  endfunction

  localparam logic END_ = 1'b1;

  function automatic step_t microcode(input logic [6:0] at);
    case (at)
      // sum of x*x
      0: microcode = step(MUL, A_L0, B_L0, TO_V0);
      1: microcode = step(ADD, A_ACC, B_V0, TO_ACC, MASK, END_);
      // sum of x
      2: microcode = step(ADD, A_ACC, B_L0, TO_ACC, MASK, END_);
      // sum of d*d, d = x - mu
      3: microcode = step(ADD, A_L0, B_S0, TO_V0, NEG);
      4: microcode = step(MUL, A_V0, B_V0, TO_V0);
      5: microcode = step(ADD, A_ACC, B_V0, TO_ACC, MASK, END_);
      // mu = sum * inv_n
      6: microcode = step(MUL, A_ACC, B_IMM0, TO_S0, PLAIN, END_);
      // r = rsqrt(sum * inv_n + eps)
      7: microcode = step(MUL, A_ACC, B_IMM0, TO_V0);
      8: microcode = step(ADD, A_V0, B_IMM1, TO_V0);
      9: microcode = step(ROOT, A_V0, B_S0, TO_S1, PLAIN, END_);
      // (x * r) * gamma
      10: microcode = step(MUL, A_L0, B_S1, TO_V0);
      11: microcode = step(MUL, A_V0, B_L1, TO_OUT, PLAIN, END_);
      // (x * r) * gamma + beta
      12: microcode = step(MUL, A_L0, B_S1, TO_V0);
      13: microcode = step(MUL, A_V0, B_L1, TO_V0);
      14: microcode = step(ADD, A_V0, B_L2, TO_OUT, PLAIN, END_);
      // (d * r) * gamma
      15: microcode = step(ADD, A_L0, B_S0, TO_V0, NEG);
      16: microcode = step(MUL, A_V0, B_S1, TO_V0);
      17: microcode = step(MUL, A_V0, B_L1, TO_OUT, PLAIN, END_);
      // (d * r) * gamma + beta
      18: microcode = step(ADD, A_L0, B_S0, TO_V0, NEG);
      19: microcode = step(MUL, A_V0, B_S1, TO_V0);
      20: microcode = step(MUL, A_V0, B_L1, TO_V0);
      21: microcode = step(ADD, A_V0, B_L2, TO_OUT, PLAIN, END_);
      // max of s
      22: microcode = step(MAX, A_ACC, B_L0, TO_ACC, MASK, END_);
      // max of s + slope * (position - last visible one)
      23: microcode = step(POSITION, A_L0, B_L0, TO_V0);
      24: microcode = step(ADD, A_LANE, B_V0, TO_V0);
      25: microcode = step(MUL, A_V0, B_S1, TO_V0);
      26: microcode = step(ADD, A_V0, B_L0, TO_V0);
      27: microcode = step(MAX, A_ACC, B_V0, TO_ACC, MASK, END_);
      // the maximum becomes a scalar
      28: microcode = step(MAX, A_ACC, B_ACC, TO_S0, PLAIN, END_);
      // P = exp(s - max) and its sum
      29: microcode = step(ADD, A_L0, B_S0, TO_V0, NEG);
      30: microcode = step(MUL, A_V0, B_LOG2E, TO_V0);
      31: microcode = step(EXP, A_V0, B_S0, TO_OUT, MASK);
      32: microcode = step(ADD, A_ACC, B_OUT, TO_ACC, MASK, END_);
      // the same with slopes
      33: microcode = step(POSITION, A_L0, B_L0, TO_V0);
      34: microcode = step(ADD, A_LANE, B_V0, TO_V0);
      35: microcode = step(MUL, A_V0, B_S1, TO_V0);
      36: microcode = step(ADD, A_V0, B_L0, TO_V0);
      37: microcode = step(ADD, A_V0, B_S0, TO_V0, NEG);
      38: microcode = step(MUL, A_V0, B_LOG2E, TO_V0);
      39: microcode = step(EXP, A_V0, B_S0, TO_OUT, MASK);
      40: microcode = step(ADD, A_ACC, B_OUT, TO_ACC, MASK, END_);
      // invisible positions
      41: microcode = step(MUL, A_L0, B_L0, TO_OUT, ZERO, END_);
      // 1 / sum
      42: microcode = step(RECIP, A_ACC, B_S0, TO_WORD, PLAIN, END_);
      // the head's slope
      43: microcode = step(MUL, A_L3, B_L0, TO_NONE, SLOPE, END_);
      // rotary, halves: a*c - b*s, then b*c + a*s
      44: microcode = step(MUL, A_L0, B_L2, TO_V0);
      45: microcode = step(MUL, A_L1, B_L3, TO_V1);
      46: microcode = step(ADD, A_V0, B_V1, TO_OUT, NEG);
      47: microcode = step(MUL, A_L1, B_L2, TO_V0);
      48: microcode = step(MUL, A_L0, B_L3, TO_V1);
      49: microcode = step(ADD, A_V0, B_V1, TO_OUT, PLAIN, END_);
      // rotary, interleaved pairs
      50: microcode = step(MUL, A_L0, B_X2, TO_V0);
      51: microcode = step(MUL, A_SWAP0, B_X3, TO_V1);
      52: microcode = step(ADD, A_V0, B_V1, TO_OUT, ALT, END_);
      // elements past the rotated ones
      53: microcode = step(MUL, A_L0, B_L0, TO_OUT, COPY, END_);
      // base + slope * f
      54: microcode = step(MUL, A_SLOPE, B_FRACTION, TO_V0);
      55: microcode = step(ADD, A_BASE, B_V0, TO_OUT, PLAIN, END_);
      // elementwise
      56: microcode = step(ADD, A_L0, B_L1, TO_OUT, PLAIN, END_);
      57: microcode = step(MUL, A_L0, B_L1, TO_OUT, PLAIN, END_);
      58: microcode = step(MUL, A_L0, B_IMM0, TO_OUT, PLAIN, END_);
      // the first element equal to the maximum, and its number
      59: microcode = step(FIND, A_L0, B_S0, TO_NONE, PLAIN, END_);
      60: microcode = step(MUL, A_L0, B_L0, TO_WORD, INDEX, END_);
      61: microcode = step(MUL, A_L0, B_L0, TO_NONE, INIT, END_);
      // the largest behind `previous`
      62: microcode = step(SELECT, A_L0, B_S3, TO_V0);
      63: microcode = step(MAX, A_ACC, B_V0, TO_ACC, MASK, END_);
      // of the first rank it is the maximum of all
      64: microcode = step(MAX, A_ACC, B_ACC, TO_S0);
      65: microcode = step(MAX, A_ACC, B_ACC, TO_S1, FIRST_RANK, END_);
      // a rank: its number, its power and the sum of the powers
      66: microcode = step(MUL, A_L0, B_L0, TO_WORD, INDEX);
      67: microcode = step(MUL, A_L0, B_L0, TO_NONE, LATCH);
      68: microcode = step(ADD, A_ACC, B_S1, TO_V0, NEG);
      69: microcode = step(MUL, A_V0, B_LOG2E, TO_V0);
      70: microcode = step(EXP, A_V0, B_S0, TO_POWER);
      71: microcode = step(ADD, A_V0, B_S2, TO_S2, PLAIN, END_);
      // the sum of all powers
      72: microcode = step(ADD, A_L0, B_S1, TO_V0, NEG);
      73: microcode = step(MUL, A_V0, B_LOG2E, TO_V0);
      74: microcode = step(EXP, A_V0, B_S0, TO_V0);
      75: microcode = step(ADD, A_ACC, B_V0, TO_ACC, MASK, END_);
      // reciprocal of the sum of the ranks (still in V0), of the sum of all
      76: microcode = step(RECIP, A_V0, B_S0, TO_S2, PLAIN, END_);
      77: microcode = step(RECIP, A_ACC, B_S0, TO_S2, PLAIN, END_);
      // a rank's weight
      default: microcode = step(MUL, A_V0, B_POWER, TO_WORD, PLAIN, END_);
    endcase
  endfunction

  // Rows are worked on phase by phase. PASS: all strips of a range. TREE_ADD, TREE_MAX: the virtual lanes become one. ONCE: a
  // program on one chunk. LOOP: goes back while there are ranks left. DONE: the next row.
  typedef enum logic [2:0] {PASS, TREE_ADD, TREE_MAX, ONCE, LOOP, DONE} phase_e;

  // ROW: [0, dim). HALF: [0, rot/2). ROT: [0, rot). TAIL: [rot, dim). FRONT: [0, block), SEEN: [block, seen),
  // BACK: [seen, width) of a softmax, block being the block of 32 of the first visible position.
  typedef enum logic [2:0] {ROW, HALF, ROT, TAIL, FRONT, SEEN, BACK} range_e;

  // ELEMENTS: at dst. BOTH: at dst and rot/2 elements behind it. FIRST, SECOND: a word at the first, second word address.
  typedef enum logic [2:0] {NOTHING, ELEMENTS, BOTH, FIRST, SECOND} store_e;

  typedef struct packed {
    phase_e     kind;
    program_e   program_;
    range_e     range;
    logic [3:0] loads;  // streams
    store_e     store;
    logic       drain;  // a PASS that needs a scalar made just before; ONCE and the trees wait in any case
    logic [2:0] back;   // phases that LOOP goes back
  } phase_t;

  // First phases of the row programs.
  typedef enum logic [6:0] {
    R_RMS = 0, R_RMS_BETA = 5, R_LAYER = 10, R_LAYER_BETA = 18, R_SOFTMAX = 26, R_SOFTMAX_SLOPE = 35,
    R_HALVES = 45, R_PAIRS = 48, R_ACT = 51, R_ADD = 53, R_MUL = 55, R_SCALE = 57, R_ARGMAX = 59, R_TOPK = 66,
    R_TOPK_SHARE = 79, R_PERMUTE = 90
  } row_e;

  function automatic phase_t phase(input phase_e kind, input program_e program_ = P_ZERO, input range_e range = ROW,
                                   input logic [3:0] loads = '0, input store_e store = NOTHING,
                                   input logic drain = 1'b0);
    phase = '{kind: kind, program_: program_, range: range, loads: loads, store: store, drain: drain, back: '0};
  endfunction

  function automatic phase_t loop(input logic [2:0] back);
    loop = '{kind: LOOP, program_: P_ZERO, range: ROW, loads: '0, store: NOTHING, drain: 1'b0, back: back};
  endfunction

  function automatic phase_t phases(input logic [6:0] at);
    case (at)
      // R_RMS
      0: phases = phase(PASS, P_SQUARES, ROW, 4'b0001, NOTHING);
      1: phases = phase(TREE_ADD);
      2: phases = phase(ONCE, P_RSQRT);
      3: phases = phase(PASS, P_RMS, ROW, 4'b0011, ELEMENTS, 1'b1);
      4: phases = phase(DONE);
      // R_RMS_BETA
      5: phases = phase(PASS, P_SQUARES, ROW, 4'b0001, NOTHING);
      6: phases = phase(TREE_ADD);
      7: phases = phase(ONCE, P_RSQRT);
      8: phases = phase(PASS, P_RMS_BETA, ROW, 4'b0111, ELEMENTS, 1'b1);
      9: phases = phase(DONE);
      // R_LAYER
      10: phases = phase(PASS, P_SUM, ROW, 4'b0001, NOTHING);
      11: phases = phase(TREE_ADD);
      12: phases = phase(ONCE, P_MEAN);
      13: phases = phase(PASS, P_DEVIATIONS, ROW, 4'b0001, NOTHING, 1'b1);
      14: phases = phase(TREE_ADD);
      15: phases = phase(ONCE, P_RSQRT);
      16: phases = phase(PASS, P_LAYER, ROW, 4'b0011, ELEMENTS, 1'b1);
      17: phases = phase(DONE);
      // R_LAYER_BETA
      18: phases = phase(PASS, P_SUM, ROW, 4'b0001, NOTHING);
      19: phases = phase(TREE_ADD);
      20: phases = phase(ONCE, P_MEAN);
      21: phases = phase(PASS, P_DEVIATIONS, ROW, 4'b0001, NOTHING, 1'b1);
      22: phases = phase(TREE_ADD);
      23: phases = phase(ONCE, P_RSQRT);
      24: phases = phase(PASS, P_LAYER_BETA, ROW, 4'b0111, ELEMENTS, 1'b1);
      25: phases = phase(DONE);
      // R_SOFTMAX
      26: phases = phase(PASS, P_MAX, SEEN, 4'b0001, NOTHING);
      27: phases = phase(TREE_MAX);
      28: phases = phase(ONCE, P_KEEP);
      29: phases = phase(PASS, P_ZERO, FRONT, 4'b0000, ELEMENTS);
      30: phases = phase(PASS, P_EXP, SEEN, 4'b0001, ELEMENTS, 1'b1);
      31: phases = phase(PASS, P_ZERO, BACK, 4'b0000, ELEMENTS);
      32: phases = phase(TREE_ADD);
      33: phases = phase(ONCE, P_RECIP, ROW, 4'b0000, FIRST);
      34: phases = phase(DONE);
      // R_SOFTMAX_SLOPE
      35: phases = phase(ONCE, P_SLOPE, ROW, 4'b1000, NOTHING);
      36: phases = phase(PASS, P_MAX_SLOPE, SEEN, 4'b0001, NOTHING, 1'b1);
      37: phases = phase(TREE_MAX);
      38: phases = phase(ONCE, P_KEEP);
      39: phases = phase(PASS, P_ZERO, FRONT, 4'b0000, ELEMENTS);
      40: phases = phase(PASS, P_EXP_SLOPE, SEEN, 4'b0001, ELEMENTS, 1'b1);
      41: phases = phase(PASS, P_ZERO, BACK, 4'b0000, ELEMENTS);
      42: phases = phase(TREE_ADD);
      43: phases = phase(ONCE, P_RECIP, ROW, 4'b0000, FIRST);
      44: phases = phase(DONE);
      // R_HALVES
      45: phases = phase(PASS, P_HALVES, HALF, 4'b1111, BOTH);
      46: phases = phase(PASS, P_COPY, TAIL, 4'b0001, ELEMENTS);
      47: phases = phase(DONE);
      // R_PAIRS
      48: phases = phase(PASS, P_PAIRS, ROT, 4'b1101, ELEMENTS);
      49: phases = phase(PASS, P_COPY, TAIL, 4'b0001, ELEMENTS);
      50: phases = phase(DONE);
      // R_ACT
      51: phases = phase(PASS, P_ACT, ROW, 4'b0001, ELEMENTS);
      52: phases = phase(DONE);
      // R_ADD
      53: phases = phase(PASS, P_ADD, ROW, 4'b0011, ELEMENTS);
      54: phases = phase(DONE);
      // R_MUL
      55: phases = phase(PASS, P_MUL, ROW, 4'b0011, ELEMENTS);
      56: phases = phase(DONE);
      // R_SCALE
      57: phases = phase(PASS, P_SCALE, ROW, 4'b0001, ELEMENTS);
      58: phases = phase(DONE);
      // R_ARGMAX
      59: phases = phase(ONCE, P_INIT);
      60: phases = phase(PASS, P_MAX, ROW, 4'b0001, NOTHING);
      61: phases = phase(TREE_MAX);
      62: phases = phase(ONCE, P_KEEP);
      63: phases = phase(PASS, P_FIND, ROW, 4'b0001, NOTHING, 1'b1);
      64: phases = phase(ONCE, P_INDEX, ROW, 4'b0000, FIRST);
      65: phases = phase(DONE);
      // R_TOPK
      66: phases = phase(ONCE, P_INIT);
      67: phases = phase(PASS, P_SELECT, ROW, 4'b0001, NOTHING, 1'b1);
      68: phases = phase(TREE_MAX);
      69: phases = phase(ONCE, P_KEEP_FIRST);
      70: phases = phase(PASS, P_FIND, ROW, 4'b0001, NOTHING, 1'b1);
      71: phases = phase(ONCE, P_RANK, ROW, 4'b0000, FIRST);
      72: phases = loop(3'd5);
      73: phases = phase(PASS, P_POWERS, ROW, 4'b0001, NOTHING, 1'b1);
      74: phases = phase(TREE_ADD);
      75: phases = phase(ONCE, P_TOTAL);
      76: phases = phase(ONCE, P_WEIGHT, ROW, 4'b0000, SECOND);
      77: phases = loop(3'd1);
      78: phases = phase(DONE);
      // R_TOPK_SHARE
      79: phases = phase(ONCE, P_INIT);
      80: phases = phase(PASS, P_SELECT, ROW, 4'b0001, NOTHING, 1'b1);
      81: phases = phase(TREE_MAX);
      82: phases = phase(ONCE, P_KEEP_FIRST);
      83: phases = phase(PASS, P_FIND, ROW, 4'b0001, NOTHING, 1'b1);
      84: phases = phase(ONCE, P_RANK, ROW, 4'b0000, FIRST);
      85: phases = loop(3'd5);
      86: phases = phase(ONCE, P_SHARE);
      87: phases = phase(ONCE, P_WEIGHT, ROW, 4'b0000, SECOND);
      88: phases = loop(3'd1);
      89: phases = phase(DONE);
      // R_PERMUTE
      90: phases = phase(PASS, P_ZERO, ROW, 4'b0000, ELEMENTS);
      default: phases = phase(DONE);
    endcase
  endfunction

  // A command's fields under names that all commands share; what a command does not have is zero (counts: one). Addresses
  // and strides count units of 16 bytes.
  typedef struct packed {
    row_e        row;          // its row program
    logic        permute;
    logic        empty;        // does nothing
    logic        bad;          // a field is out of range
    logic [11:0] batch;
    logic [19:0] rows_o;
    logic [11:0] rows_i;
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
    logic        last;  // of its strip
  } load_t;

  typedef struct packed {
    logic [6:0]  start;     // first step
    logic        tree;      // instead of a program
    logic        tree_max;
    logic        loads;     // waits for a loaded strip and frees it
    logic        drain;     // waits for the results of what went before
    logic        first;     // strip of its pass
    logic [11:0] count;     // elements
    logic [4:0]  skip;      // elements at the start that are outside of the row
    logic [23:0] number;    // of the first element
    logic [24:0] position;  // of the first element, less the last visible one: two's complement
    logic [7:0]  rank;
  } work_t;

  // One chunk of one step on its way through the lanes.
  typedef struct packed {
    step_t       step;
    logic [3:0]  chunk;
    logic [3:0]  slot_a;    // of the accumulators
    logic [3:0]  slot_b;
    logic        fresh_a;   // no element went there yet
    logic        fresh_b;
    logic [2:0]  rotate;    // lane i takes b of lane i + 2^(rotate-1); 0: its own
    logic [11:0] count;     // as in work_t
    logic [4:0]  skip;
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
