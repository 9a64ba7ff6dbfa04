// The store engine: COPY, GATHER, KV_APPEND and LOAD_TABLE. But for an MXINT8 cache it moves bytes and changes none.
//
// Read requests run ahead of the write requests, both at their own pace; the data goes straight through. The front
// end has checked every address but those of GATHER's table rows, which are looked at in a pass of their own before
// the first byte is written. After a memory error the command runs to its end without writing, then reports `bus`.
//
// KV_APPEND: a row of dim fp16 is cut into blocks of 32 elements, each of which has a place in the cache of its own. For
// an MXINT8 cache kv_quantize stands behind the mover, and a block has two places: mantissas, then an exponent byte.
module store_engine #(
    parameter int unsigned UNITS = 2,
    parameter int unsigned SPACES = 1,
    parameter logic [SPACES-1:0][mem_pkg::ADDRESS_WIDTH-1:0] BASE = '0,
    parameter logic [SPACES-1:0][mem_pkg::ADDRESS_WIDTH-1:0] CAPACITY = {SPACES{40'h1000}},
    localparam int unsigned WIDTH = UNITS * mem_pkg::UNIT_BITS
) (
    input  logic                               clk_i,
    input  logic                               rst_i,

    input  logic                               cmd_valid_i,
    output logic                               cmd_ready_o,
    input  logic [7:0]                         cmd_opcode_i,
    input  logic [31:0]                        cmd_word_i [dlavm_isa_pkg::MAX_PAYLOAD_WORDS],
    output logic                               done_o,
    output logic                               error_o,
    output logic [3:0]                         error_code_o,

    // read clients: 0 the ids of GATHER, 1 everything else
    output logic [1:0]                              rd_req_valid_o,
    input  logic [1:0]                              rd_req_ready_i,
    output logic [1:0][mem_pkg::ADDRESS_WIDTH-1:0]  rd_req_addr_o,
    output logic [1:0][mem_pkg::COUNT_WIDTH-1:0]    rd_req_units_o,
    input  logic [1:0]                              rd_valid_i,
    output logic [1:0]                              rd_ready_o,
    input  logic [1:0][WIDTH-1:0]                   rd_data_i,
    input  logic [1:0]                              rd_error_i,

    output logic                               wr_req_valid_o,
    input  logic                               wr_req_ready_i,
    output logic [mem_pkg::ADDRESS_WIDTH-1:0]  wr_req_addr_o,
    output logic [mem_pkg::COUNT_WIDTH-1:0]    wr_req_units_o,
    output logic                               wr_valid_o,
    input  logic                               wr_ready_i,
    output logic [WIDTH-1:0]                   wr_data_o,
    output logic [WIDTH/8-1:0]                 wr_strb_o,
    input  logic                               wr_idle_i,
    input  logic                               wr_error_i,

    // activation tables
    output logic                               table_write_o,
    output logic [1:0]                         table_slot_o,
    output logic [10:0]                        table_index_o,
    output logic [63:0]                        table_pair_o   // {base, slope}
);

  import dlavm_isa_pkg::*;

  localparam int unsigned KV_UNITS = 4;          // 32 fp16
  localparam int unsigned TABLE_UNITS = 1024;
  localparam int unsigned PIECE = (UNITS < KV_UNITS) ? UNITS : KV_UNITS;

  // Words of the command that is in work; they are steady.
  logic is_copy, is_gather, is_append, is_table, is_bytes;
  assign is_copy   = cmd_opcode_i == OP_COPY;
  assign is_gather = cmd_opcode_i == OP_GATHER;
  assign is_append = cmd_opcode_i == OP_KV_APPEND;
  assign is_table  = cmd_opcode_i == OP_LOAD_TABLE;
  assign is_bytes  = is_append && cmd_word_i[KV_APPEND_FORMAT_WORD][KV_APPEND_FORMAT_LSB] == KV_FORMAT_MXINT8;

  function automatic logic [mem_pkg::ADDRESS_WIDTH-1:0] in_bytes(input logic [31:0] word);
    in_bytes = {4'd0, word, 4'd0};
  endfunction

  logic [mem_pkg::ADDRESS_WIDTH-1:0] src, src_so, src_si, dst, dst_so, dst_si;
  logic [19:0]                       rows_o, dim;
  logic [11:0]                       rows_i, units;
  logic [17:0]                       row_units;

  always_comb begin
    src    = in_bytes(cmd_word_i[is_append ? KV_APPEND_SRC_WORD : COPY_SRC_WORD]);
    src_so = in_bytes(cmd_word_i[is_append ? KV_APPEND_SRC_SO_WORD : COPY_SRC_SO_WORD]);
    src_si = in_bytes(cmd_word_i[is_append ? KV_APPEND_SRC_SI_WORD : COPY_SRC_SI_WORD]);
    dst    = in_bytes(cmd_word_i[is_gather ? GATHER_DST_WORD : COPY_DST_WORD]);
    dst_so = in_bytes(cmd_word_i[is_gather ? GATHER_DST_SO_WORD : COPY_DST_SO_WORD]);
    dst_si = in_bytes(cmd_word_i[is_append ? KV_APPEND_CACHE_HEAD_WORD : COPY_DST_SI_WORD]);
    rows_o = cmd_word_i[COPY_ROWS_O_WORD][19:0];
    rows_i = is_gather ? 12'd1 : cmd_word_i[is_append ? KV_APPEND_ROWS_I_WORD : COPY_ROWS_I_WORD][11:0];
    dim    = cmd_word_i[COPY_DIM_WORD][19:0];
    if (is_gather) begin
      rows_o = cmd_word_i[GATHER_ROWS_O_WORD][19:0];
      dim    = cmd_word_i[GATHER_DIM_WORD][19:0];
    end
    if (is_append) begin
      rows_o = cmd_word_i[KV_APPEND_ROWS_O_WORD][19:0];
      dim    = {4'd0, cmd_word_i[KV_APPEND_DIM_WORD][15:0]};
    end
  end
  assign units     = 12'((dim[15:0] >> 5) + 16'(dim[4:0] != 0));  // blocks of 32 of a head
  assign row_units = 18'((21'(dim) + 21'd7) >> 3);

  typedef enum logic [2:0] {IDLE, CHOOSE, IDS, SETUP, BEGIN, RUN, TABLE} state_e;
  state_e state_q;

  logic       run, begin_rows, nothing;
  logic       ids_idle, ids_bad_index, ids_bad_address, ids_bus_error;
  logic       table_error_q, table_done, write_error_q;
  logic [3:0] pending_q;  // rows asked to be written whose data has not passed

  assign run        = state_q == RUN;
  assign begin_rows = state_q == BEGIN;
  assign nothing    = !is_table && (rows_o == 0 || rows_i == 0 || dim == 0);

  // Where the rows come from: the walker, or the ids.
  logic                              src_valid, src_ready, id_valid, id_ready;
  logic [mem_pkg::ADDRESS_WIDTH-1:0] src_addr, id_addr;
  logic                              unused_outer;
  store_walker u_src (
      .clk_i, .rst_i, .start_i(begin_rows && !is_gather), .base_i(src), .so_i(src_so), .si_i(src_si),
      .rows_o_i(rows_o), .rows_i_i(rows_i), .valid_o(src_valid), .ready_i(src_ready), .addr_o(src_addr),
      .outer_o(unused_outer));

  gather_ids #(.UNITS(UNITS), .SPACES(SPACES), .BASE(BASE), .CAPACITY(CAPACITY)) u_ids (
      .clk_i, .rst_i, .start_i((state_q == CHOOSE && is_gather && !nothing) || (begin_rows && is_gather)),
      .check_i(state_q == IDS), .ids_i(cmd_word_i[GATHER_IDS_WORD]), .table_i(cmd_word_i[GATHER_TABLE_WORD]),
      .table_so_i(cmd_word_i[GATHER_TABLE_SO_WORD]), .rows_i(rows_o), .dim_i(dim),
      .limit_i(cmd_word_i[GATHER_LIMIT_WORD][23:0]), .idle_o(ids_idle), .bad_index_o(ids_bad_index),
      .bad_address_o(ids_bad_address), .bus_error_o(ids_bus_error),
      .row_valid_o(id_valid), .row_ready_i(id_ready), .row_addr_o(id_addr),
      .rd_req_valid_o(rd_req_valid_o[0]), .rd_req_ready_i(rd_req_ready_i[0]), .rd_req_addr_o(rd_req_addr_o[0]),
      .rd_req_units_o(rd_req_units_o[0]), .rd_valid_i(rd_valid_i[0]), .rd_ready_o(rd_ready_o[0]),
      .rd_data_i(rd_data_i[0]), .rd_error_i(rd_error_i[0]));

  logic table_asked_q;
  assign rd_req_valid_o[1] = (state_q == TABLE && !table_asked_q) || src_valid || id_valid;
  assign rd_req_addr_o[1]  = is_table ? in_bytes(cmd_word_i[LOAD_TABLE_TABLE_WORD]) : is_gather ? id_addr : src_addr;
  assign rd_req_units_o[1] = is_table ? 24'(TABLE_UNITS) : 24'(row_units);
  assign src_ready         = rd_req_ready_i[1];
  assign id_ready          = rd_req_ready_i[1];

  // Where they go: rows, or the blocks of each row in the cache. A token's place follows the one before by a row of the
  // cache, in the next block of 32 tokens from the start.
  logic                              dst_valid, dst_ready, dst_outer, block_last, row_last, asked;
  logic [mem_pkg::ADDRESS_WIDTH-1:0] dst_addr, cache_q, append_so, block_q, exponent_addr;
  logic [31:0]                       block_bytes;
  logic [4:0]                        slot_q, first_slot;
  logic [11:0]                       units_left_q, units_left;
  logic                              in_row_q, exponent_q;

  assign first_slot  = cmd_word_i[KV_APPEND_POS_WORD][4:0];
  assign block_bytes = kv_pkg::block_bytes(is_bytes, 32'(units));
  always_comb begin
    append_so = is_bytes ? 40'(kv_pkg::BYTE_ROW) : 40'(kv_pkg::HALF_ROW);
    if (slot_q == 5'd31) append_so = 40'(block_bytes) - (is_bytes ? 40'(31 * kv_pkg::BYTE_ROW) : 40'(31 * kv_pkg::HALF_ROW));
  end
  store_walker u_dst (
      .clk_i, .rst_i, .start_i(begin_rows), .base_i(is_append ? cache_q : dst), .so_i(is_append ? append_so : dst_so),
      .si_i(dst_si), .rows_o_i(rows_o), .rows_i_i(rows_i), .valid_o(dst_valid), .ready_i(dst_ready),
      .addr_o(dst_addr), .outer_o(dst_outer));

  // An exponent's unit of 16 bytes, from the row's first place: its block's exponents follow all of its mantissas.
  assign exponent_addr = dst_addr - 40'({slot_q, 5'd0}) + 40'(units) * 40'(kv_pkg::BYTE_UNIT)
                         + 40'(units - units_left) * 40'(kv_pkg::EXPONENTS) + 40'({slot_q[4], 4'd0});

  assign units_left     = in_row_q ? units_left_q : units;
  assign block_last     = !is_append || units_left == 12'd1;
  assign row_last       = block_last && (!is_bytes || exponent_q);
  assign wr_req_valid_o = dst_valid && (pending_q < 4'd8);
  assign asked          = wr_req_valid_o && wr_req_ready_i;
  assign dst_ready      = wr_req_ready_i && row_last && (pending_q < 4'd8);
  always_comb begin
    wr_req_addr_o = (is_append && in_row_q) ? block_q : dst_addr;
    if (exponent_q) wr_req_addr_o = exponent_addr;
    if (exponent_q) wr_req_units_o = 24'd1;
    else if (is_bytes) wr_req_units_o = 24'(kv_pkg::BYTE_ROW / 16);
    else if (!is_append) wr_req_units_o = 24'(row_units);
    else if (!block_last) wr_req_units_o = 24'(KV_UNITS);
    else wr_req_units_o = 24'(row_units - 18'(units - 12'd1) * 18'(KV_UNITS));
  end

  always_ff @(posedge clk_i) begin
    if (state_q == SETUP) begin
      cache_q <= in_bytes(cmd_word_i[KV_APPEND_CACHE_WORD])
                 + 40'(cmd_word_i[KV_APPEND_POS_WORD][23:5]) * 40'(block_bytes)
                 + (is_bytes ? 40'({first_slot, 5'd0}) : 40'({first_slot, 6'd0}));
      slot_q  <= first_slot;
    end else if (dst_outer) begin
      slot_q <= slot_q + 5'd1;
    end
    if (asked && !exponent_q) block_q <= wr_req_addr_o + (is_bytes ? 40'(kv_pkg::BYTE_UNIT) : 40'(kv_pkg::HALF_UNIT));
    if (asked && (!is_bytes || exponent_q)) begin
      units_left_q <= units_left - 12'd1;
      in_row_q     <= !block_last;
    end
    if (asked) exponent_q <= is_bytes && !exponent_q;
    if (rst_i || begin_rows) begin
      in_row_q   <= 1'b0;
      exponent_q <= 1'b0;
    end
  end

  logic               mover_error, mover_row_done, mover_ready, mover_valid, bytes_ready, bytes_valid, bytes_row_done;
  logic [WIDTH-1:0]   mover_data, bytes_data;
  logic [WIDTH/8-1:0] mover_strb, bytes_strb;
  logic               row_done;
  row_mover #(.UNITS(UNITS), .PIECE(PIECE)) u_mover (
      .clk_i, .rst_i, .clear_i(state_q == CHOOSE), .enable_i(run), .cut_i(is_append), .row_bytes_i({dim, 1'b0}),
      .row_done_o(mover_row_done), .error_o(mover_error),
      .rd_valid_i(rd_valid_i[1]), .rd_ready_o(mover_ready), .rd_data_i(rd_data_i[1]), .rd_error_i(rd_error_i[1]),
      .wr_valid_o(mover_valid), .wr_ready_i(is_bytes ? bytes_ready : wr_ready_i), .wr_data_o(mover_data),
      .wr_strb_o(mover_strb));

  kv_quantize #(.UNITS(UNITS), .PIECE(PIECE)) u_bytes (
      .clk_i, .rst_i, .start_i(begin_rows), .slot_i(slot_q), .rows_i_i(rows_i), .row_done_o(bytes_row_done),
      .valid_i(is_bytes && mover_valid), .ready_o(bytes_ready), .data_i(mover_data[PIECE*mem_pkg::UNIT_BITS-1:0]),
      .strb_i(mover_strb[PIECE*16-1:0]), .last_i(mover_row_done), .valid_o(bytes_valid), .ready_i(wr_ready_i),
      .data_o(bytes_data), .strb_o(bytes_strb));

  assign row_done   = is_bytes ? bytes_row_done : mover_row_done;
  assign wr_valid_o = is_bytes ? bytes_valid : mover_valid;
  assign wr_data_o  = is_bytes ? bytes_data : mover_data;
  assign wr_strb_o  = is_bytes ? bytes_strb : mover_strb;

  // LOAD_TABLE: a pair a cycle.
  localparam int unsigned PAIRS = UNITS * 2;
  localparam int unsigned PAIR_WIDTH = $clog2(PAIRS);
  logic [10:0]           pair_q;
  logic [PAIR_WIDTH-1:0] pair_place;
  assign pair_place    = PAIR_WIDTH'(pair_q);
  assign table_write_o = state_q == TABLE && rd_valid_i[1] && !table_error_q && !rd_error_i[1];
  assign table_slot_o  = cmd_word_i[LOAD_TABLE_ACT_SLOT_WORD][LOAD_TABLE_ACT_SLOT_LSB+:LOAD_TABLE_ACT_SLOT_BITS];
  assign table_index_o = pair_q;
  assign table_pair_o  = {fp_pkg::finite(rd_data_i[1][64*pair_place+:32]), fp_pkg::finite(rd_data_i[1][64*pair_place+32+:32])};
  assign table_done    = state_q == TABLE && rd_valid_i[1] && pair_q == '1;
  assign rd_ready_o[1] = (state_q == TABLE) ? pair_place == PAIR_WIDTH'(PAIRS - 1) : mover_ready;

  logic finished, failed;
  // What gather_ids says is of the last GATHER.
  assign failed      = mover_error || write_error_q || wr_error_i || (is_gather && ids_bus_error);
  assign finished    = run && !src_valid && !dst_valid && ids_idle && pending_q == 0 && wr_idle_i;
  assign cmd_ready_o = state_q == IDLE;

  // The command's words may go with `done_o`; it is answered a cycle after the last thing it needed them for.
  always_ff @(posedge clk_i) begin
    done_o       <= 1'b0;
    error_o      <= 1'b0;
    error_code_o <= ERROR_NONE;
    if (state_q == TABLE && rd_valid_i[1]) begin
      pair_q        <= pair_q + 11'd1;
      table_error_q <= table_error_q || rd_error_i[1];
    end
    if (rd_req_valid_o[1] && rd_req_ready_i[1]) table_asked_q <= 1'b1;
    if (wr_error_i) write_error_q <= 1'b1;
    pending_q <= pending_q + 4'(asked && row_last) - 4'(row_done);
    case (state_q)
      IDLE: if (cmd_valid_i) begin
        state_q       <= CHOOSE;
        table_asked_q <= 1'b0;
        table_error_q <= 1'b0;
        write_error_q <= 1'b0;
        pair_q        <= '0;
      end
      CHOOSE: begin
        if (!is_copy && !is_gather && !is_append && !is_table) begin
          error_o      <= 1'b1;
          error_code_o <= ERROR_ILLEGAL_OPCODE;
          state_q      <= IDLE;
        end else if (nothing) begin
          done_o  <= 1'b1;
          state_q <= IDLE;
        end else begin
          state_q <= is_table ? TABLE : is_gather ? IDS : is_append ? SETUP : BEGIN;
        end
      end
      IDS: if (ids_idle) begin
        error_o <= ids_bus_error || ids_bad_index || ids_bad_address;
        if (ids_bus_error) error_code_o <= ERROR_BUS;
        else if (ids_bad_index) error_code_o <= ERROR_GATHER_INDEX;
        else if (ids_bad_address) error_code_o <= ERROR_BAD_ADDRESS;
        state_q <= (ids_bus_error || ids_bad_index || ids_bad_address) ? IDLE : BEGIN;
      end
      SETUP: state_q <= BEGIN;
      BEGIN: state_q <= RUN;
      RUN: if (finished) begin
        done_o       <= !failed;
        error_o      <= failed;
        error_code_o <= failed ? ERROR_BUS : ERROR_NONE;
        state_q      <= IDLE;
      end
      default: if (table_done) begin
        done_o       <= !(table_error_q || rd_error_i[1]);
        error_o      <= table_error_q || rd_error_i[1];
        error_code_o <= (table_error_q || rd_error_i[1]) ? ERROR_BUS : ERROR_NONE;
        state_q      <= IDLE;
      end
    endcase
    if (rst_i) begin
      state_q   <= IDLE;
      done_o    <= 1'b0;
      error_o   <= 1'b0;
      pending_q <= '0;
    end
  end

endmodule
