// Reads rows of src and puts their blocks of 32 into the activation buffer, row after row: an entry for each block.
//
// The rows are loaded in sets: all of K, one set a batch; or, where values' K (which counts tokens) leaves no room for two
// of these, 32 k of all rows, one set for each block of 32 tokens. The buffer is cut into equal places for them, which
// they take in turn; a set is loaded as soon as one is free.
module activation_load #(
    parameter int unsigned UNITS = 2,     // 16 bytes each, of a beat
    parameter int unsigned ENTRIES = 256, // blocks of 32 that the activation buffer holds
    localparam int unsigned ENTRY_WIDTH = $clog2(ENTRIES),
    localparam int unsigned PIECES = (UNITS < 4) ? 4 / UNITS : 1,  // beats of a block
    localparam int unsigned BANKS = (UNITS > 4) ? UNITS / 4 : 1,   // blocks of a beat
    localparam int unsigned PIECE_WIDTH = mem_pkg::index_width(PIECES)
) (
    input  logic                   clk_i,
    input  logic                   rst_i,
    // a command; steady until the next start
    input  logic                   start_i,
    input  logic                   pieces_i,   // a set is 32 k, else all
    input  logic [1:0]             places_i,   // of sets in the buffer, log2
    input  logic [31:0]            src_i,      // addresses in units of 16 bytes
    input  logic [31:0]            src_so_i,
    input  logic [31:0]            src_si_i,
    input  logic [31:0]            src_b_i,
    input  logic [11:0]            rows_i_i,   // inner rows
    input  logic [23:0]            rows_all_i, // all rows
    input  logic [23:0]            k_i,
    input  logic [23:0]            k_blocks_i,
    input  logic [11:0]            batch_i,
    output logic                   idle_o,
    // read client
    output logic                   req_valid_o,
    input  logic                   req_ready_i,
    output logic [31:0]            req_unit_o,
    output logic [23:0]            req_units_o,
    input  logic                   valid_i,
    output logic                   ready_o,
    input  logic                   last_i,
    // the buffer
    output logic                   write_o,
    output logic [PIECE_WIDTH-1:0] piece_o,
    output logic [ENTRY_WIDTH-1:0] entry_o,
    output logic [$clog2(BANKS):0] blocks_o,
    output logic                   set_done_o,
    input  logic [2:0]             set_free_i   // sets that are no longer in use from now on
);

  // Requests
  logic        active_q, begin_q;
  logic [11:0] batch_q;
  logic [23:0] set_q, row_q, k_left_q, limit;
  logic [31:0] base_q, batch_base_q;
  logic [3:0]  used_q;  // sets that were asked for and not freed
  logic        room, accept, row_last, set_last, batch_last;
  assign limit       = (pieces_i && k_left_q > 24'd32) ? 24'd32 : k_left_q;
  assign req_units_o = 24'((limit + 24'd7) >> 3);
  assign room        = used_q != (4'd1 << places_i);
  assign req_valid_o = active_q & ~begin_q & (room | (row_q != 0));
  assign accept      = req_valid_o & req_ready_i;
  assign row_last    = (row_q + 24'd1 == rows_all_i);
  assign set_last    = ~pieces_i | (set_q + 24'd1 == k_blocks_i);
  assign batch_last  = (batch_q + 12'd1 == batch_i);

  row_walker u_rows (
      .clk_i, .start_i(begin_q), .next_i(accept), .base_i(base_q), .so_i(src_so_i), .si_i(src_si_i),
      .rows_i_i, .address_o(req_unit_o));

  always_ff @(posedge clk_i) begin
    begin_q <= 1'b0;
    if (start_i) begin
      active_q     <= 1'b1;
      begin_q      <= 1'b1;
      base_q       <= src_i;
      batch_base_q <= src_i;
      batch_q      <= '0;
      set_q        <= '0;
      row_q        <= '0;
      k_left_q     <= k_i;
    end else if (accept) begin
      row_q <= row_last ? '0 : row_q + 24'd1;
      if (row_last) begin
        begin_q  <= 1'b1;
        set_q    <= set_last ? '0 : set_q + 24'd1;
        base_q   <= base_q + 32'd4;
        k_left_q <= k_left_q - 24'd32;
        if (set_last) begin
          batch_q      <= batch_q + 12'd1;
          batch_base_q <= batch_base_q + src_b_i;
          base_q       <= batch_base_q + src_b_i;
          k_left_q     <= k_i;
          active_q     <= ~batch_last;
        end
      end
    end
    used_q <= used_q + 4'(accept & (row_q == 0)) - 4'(set_free_i);
    if (rst_i || start_i) used_q <= '0;
    if (rst_i) active_q <= 1'b0;
  end

  // Data. A row's last block may lack beats, its last beat blocks; what stands there then is never read.
  logic [PIECE_WIDTH-1:0] piece_q;
  logic [ENTRY_WIDTH-1:0] entry_q, place_q, next_place;  // place: of the set
  logic                   block_last;
  logic [23:0]            rows_in_q, left_q;  // left: blocks of the row behind this beat's
  assign ready_o    = 1'b1;
  assign next_place = place_q + ENTRY_WIDTH'(ENTRIES >> places_i);
  assign block_last = last_i | (piece_q == PIECE_WIDTH'(PIECES - 1));
  assign write_o    = valid_i;
  assign piece_o    = piece_q;
  assign entry_o    = entry_q;
  assign blocks_o   = (left_q < 24'(BANKS)) ? ($clog2(BANKS) + 1)'(left_q) : ($clog2(BANKS) + 1)'(BANKS);
  assign set_done_o = valid_i & last_i & (rows_in_q + 24'd1 == rows_all_i);

  always_ff @(posedge clk_i) begin
    if (valid_i) begin
      piece_q <= block_last ? '0 : piece_q + 1'b1;
      if (block_last) begin
        entry_q <= entry_q + ENTRY_WIDTH'(blocks_o);
        left_q  <= left_q - 24'(BANKS);
      end
      if (last_i) begin
        rows_in_q <= rows_in_q + 24'd1;
        left_q    <= pieces_i ? 24'd1 : k_blocks_i;
      end
      if (set_done_o) begin
        rows_in_q <= '0;
        place_q   <= next_place;
        entry_q   <= next_place;
      end
    end
    if (rst_i || start_i) begin
      piece_q   <= '0;
      entry_q   <= '0;
      place_q   <= '0;
      rows_in_q <= '0;
      left_q    <= pieces_i ? 24'd1 : k_blocks_i;
    end
  end

  assign idle_o = ~active_q;

endmodule
