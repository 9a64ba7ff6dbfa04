// The activation buffer: blocks of 32 fp16 values, as they were read. A beat is a piece of a block, or holds several blocks,
// which then go to entries that follow each other, each in a bank of its own. Reading a block takes a cycle.
module activation_buffer #(
    parameter int unsigned UNITS = 2,      // 16 bytes each, of a beat
    parameter int unsigned ENTRIES = 256,  // blocks
    localparam int unsigned ENTRY_WIDTH = $clog2(ENTRIES),
    localparam int unsigned PIECES = (UNITS < 4) ? 4 / UNITS : 1,  // beats of a block
    localparam int unsigned BANKS = (UNITS > 4) ? UNITS / 4 : 1,   // blocks of a beat
    localparam int unsigned PIECE_WIDTH = mem_pkg::index_width(PIECES)
) (
    input  logic                   clk_i,
    input  logic                   write_i,
    input  logic [PIECE_WIDTH-1:0] piece_i,   // of the block
    input  logic [ENTRY_WIDTH-1:0] entry_i,   // of the beat's first block
    input  logic [$clog2(BANKS):0] blocks_i,  // in this beat
    input  logic [UNITS*128-1:0]   data_i,
    input  logic [ENTRY_WIDTH-1:0] read_entry_i,
    output logic [31:0][15:0]      block_o
);

  if (BANKS == 1) begin : g_pieces
    logic [PIECES-1:0][UNITS*128-1:0] piece_q;
    for (genvar p = 0; p < int'(PIECES); p++) begin : g_piece
      logic [UNITS*128-1:0] entries [ENTRIES];
      always_ff @(posedge clk_i) begin
        if (write_i && piece_i == PIECE_WIDTH'(p)) entries[entry_i] <= data_i;
        piece_q[p] <= entries[read_entry_i];
      end
    end
    assign block_o = piece_q;
    // A beat has one block at most.
    logic unused_blocks;
    assign unused_blocks = &{1'b0, blocks_i};
  end else begin : g_banks
    localparam int unsigned BANK_WIDTH = $clog2(BANKS);
    logic [BANKS-1:0][511:0] blocks, bank_q;
    logic [BANK_WIDTH-1:0]   bank_of_read_q;
    assign blocks  = data_i;
    assign block_o = bank_q[bank_of_read_q];
    always_ff @(posedge clk_i) bank_of_read_q <= read_entry_i[BANK_WIDTH-1:0];
    for (genvar b = 0; b < int'(BANKS); b++) begin : g_bank
      logic [511:0]           entries [ENTRIES/BANKS];
      logic [BANK_WIDTH-1:0]  place;  // of the block that this bank takes, in the beat
      logic [ENTRY_WIDTH-1:0] entry;
      assign place = BANK_WIDTH'(b) - entry_i[BANK_WIDTH-1:0];
      assign entry = entry_i + ENTRY_WIDTH'(place);
      always_ff @(posedge clk_i) begin
        if (write_i && (BANK_WIDTH + 1)'(place) < blocks_i) entries[entry[ENTRY_WIDTH-1:BANK_WIDTH]] <= blocks[place];
        bank_q[b] <= entries[read_entry_i[ENTRY_WIDTH-1:BANK_WIDTH]];
      end
      // The entry's last bits are the bank.
      logic unused_bank;
      assign unused_bank = &{1'b0, entry[BANK_WIDTH-1:0]};
    end
    logic unused_piece;
    assign unused_piece = &{1'b0, piece_i};
  end

endmodule
