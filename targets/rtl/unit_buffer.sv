// Units (blocks of 32 k of a row tile) between memory and lanes: a ring of slots, each with an entry for every slice
// and half, and two bytes of scale and one of zero point or exponent a row.
//
// A slot has 4 slices where a slice holds 8 k of a row (codes of 4 and 6 bits), else 8; there are half as many then. A writer fills the slot
// `write_slot_o` and those behind it while `room_o` says that there are enough, then pushes them. Units leave in order:
// `full_i` of the reader's own count, then `release_i`. Reading an entry takes a cycle, metadata none.
module unit_buffer #(
    parameter int unsigned UNITS = 2,       // quads
    parameter int unsigned HALVES = 2,
    parameter int unsigned SLOTS = 8,       // of 4 slices
    localparam int unsigned ENTRY_WIDTH = $clog2(8 * HALVES),
    localparam int unsigned DEPTH = SLOTS * 4 * HALVES,  // entries of a quad
    localparam int unsigned SLOT_WIDTH = $clog2(SLOTS)
) (
    input  logic                             clk_i,
    input  logic                             rst_i,
    input  logic                             short_i,        // slots of 4 slices, not 8; steady

    output logic [SLOT_WIDTH-1:0]            write_slot_o,   // the first free one
    output logic [SLOT_WIDTH:0]              room_o,         // free slots
    input  logic [UNITS-1:0]                 write_i,        // by quad
    input  logic [UNITS-1:0][SLOT_WIDTH-1:0] write_slot_i,
    input  logic [UNITS-1:0][ENTRY_WIDTH-1:0] write_entry_i,
    input  logic [UNITS-1:0][3:0][3:0][11:0] code_i,         // by quad, row, kk
    input  logic [UNITS-1:0][HALVES-1:0]     write_meta_i,   // by quad, half
    input  logic [SLOT_WIDTH-1:0]            meta_slot_i,
    input  logic [UNITS-1:0][4*HALVES-1:0][23:0] metadata_i,     // by quad, row
    input  logic [2:0]                       push_i,         // units complete in this cycle

    input  logic [SLOT_WIDTH-1:0]            read_slot_i,
    input  logic [ENTRY_WIDTH-1:0]           read_entry_i,
    output logic [UNITS-1:0][3:0][3:0][11:0] code_o,         // a cycle later
    input  logic [SLOT_WIDTH-1:0]            read_meta_slot_i,
    output logic [UNITS-1:0][4*HALVES-1:0][23:0] metadata_o,
    input  logic                             release_i
);

  logic [SLOT_WIDTH-1:0] slot_q;
  logic [SLOT_WIDTH:0]   used_q, slots;
  assign slots        = short_i ? (SLOT_WIDTH + 1)'(SLOTS) : (SLOT_WIDTH + 1)'(SLOTS / 2);
  assign write_slot_o = slot_q;
  assign room_o       = slots - used_q;

  always_ff @(posedge clk_i) begin
    if (rst_i) begin
      slot_q <= '0;
      used_q <= '0;
    end else begin
      slot_q <= slot_q + SLOT_WIDTH'(push_i);
      used_q <= used_q + (SLOT_WIDTH + 1)'(push_i) - (SLOT_WIDTH + 1)'(release_i);
    end
  end

  logic [$clog2(DEPTH)-1:0] read_at;
  assign read_at  = short_i ? {read_slot_i, read_entry_i[ENTRY_WIDTH-2:0]}
                            : {read_slot_i[SLOT_WIDTH-2:0], read_entry_i};

  for (genvar u = 0; u < int'(UNITS); u++) begin : g_quad
    logic [3:0][3:0][11:0]    codes [DEPTH];
    logic [$clog2(DEPTH)-1:0] write_at;
    assign write_at = short_i ? {write_slot_i[u], write_entry_i[u][ENTRY_WIDTH-2:0]}
                              : {write_slot_i[u][SLOT_WIDTH-2:0], write_entry_i[u]};
    always_ff @(posedge clk_i) begin
      if (write_i[u]) codes[write_at] <= code_i[u];
      code_o[u] <= codes[read_at];
    end
    for (genvar h = 0; h < int'(HALVES); h++) begin : g_half
      logic [3:0][23:0] rows [SLOTS];
      always_ff @(posedge clk_i) if (write_meta_i[u][h]) rows[meta_slot_i] <= metadata_i[u][4*h+:4];
      assign metadata_o[u][4*h+:4] = rows[read_meta_slot_i];
    end
  end

endmodule
