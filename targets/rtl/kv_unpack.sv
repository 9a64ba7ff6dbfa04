// Blocks of the KV cache ([32 tokens][32 elements]) -> units in the unit buffer, where a row tile has 8 or 16 rows
// (kv_blocks does it for larger ones). Every token's 32 elements are quantised alone, if they are fp16; four tokens at a
// time are then turned round into entries of [4 rows][4 k].
//
// keys     rows are tokens, k elements: a unit is a row tile of tokens x 32 elements, an entry has four k of the four
//          tokens; their exponents go with the rows.
// values   rows are elements, k tokens: a block of 32 x 32 fills units of its elements (one for each row tile of them);
//          an entry has the four tokens of four elements; the tokens' exponents are for the quantiser of P.
// MXINT8   (kv_pkg) mantissas and exponents come as they are; a unit of keys, a block of values comes behind the 32
//          exponents of its block's tokens. What stands past head_dim meets zeros (keys), or is not written (values).
//
// Memory may deliver a beat every cycle; a token is taken every second cycle at most, because the eight entries of four
// tokens leave one a cycle. That is as fast as it comes, but for two units of MXINT8.
module kv_unpack #(
    parameter int unsigned UNITS = 2,   // 1 or 2
    parameter int unsigned PORT_BYTES = 16,
    parameter int unsigned SLOT_WIDTH = 3,
    localparam int unsigned TILE = 8 * UNITS,
    localparam int unsigned PARTS = 32 / TILE  // beats of a token; row tiles of a block of values
) (
    input  logic                             clk_i,
    input  logic                             rst_i,
    input  logic                             clear_i,       // before each command
    input  logic                             enable_i,
    input  logic                             values_i,      // else keys
    input  logic                             bytes_i,       // MXINT8, else fp16
    input  logic [23:0]                      tiles_i,       // keys: row tiles of a batch
    input  logic [23:0]                      dim_blocks_i,  // ceil(head_dim / 32)
    input  logic [5:0]                       dim_tail_i,    // elements in the last one, 1..32
    input  logic                             valid_i,
    output logic                             ready_o,
    input  logic [UNITS*128-1:0]             beat_i,
    input  logic [SLOT_WIDTH-1:0]            slot_i,        // the first free slot
    input  logic [SLOT_WIDTH:0]              room_i,        // and how many there are
    output logic [UNITS-1:0]                 write_o,
    output logic [SLOT_WIDTH-1:0]            slot_o,
    output logic [3:0]                       entry_o,
    output logic [UNITS-1:0][3:0][3:0][11:0] code_o,
    output logic [UNITS-1:0][1:0]            write_meta_o,
    output logic [UNITS-1:0][7:0][23:0]      metadata_o,
    output logic [7:0]                       exp_valid_o,   // values: exponents of tokens 4 * i .. of the block that
    output logic [31:0][7:0]                 exp_o,         // begins at slot slot_i
    output logic [2:0]                       push_o
);

  localparam int unsigned KEY_GROUPS = TILE / 4;

  // In: the beats of a token, then 32 elements to the quantiser. Elements past head_dim read as zero.
  localparam int unsigned PART_WIDTH = $clog2(PARTS);
  localparam int unsigned BYTE_PARTS = (UNITS == 1) ? 2 : 1;
  localparam int unsigned EXPONENT_BEATS = (UNITS == 1) ? 2 : 1;
  logic [PARTS-1:0][TILE-1:0][15:0] token_q;
  logic [31:0][15:0]                elements;
  logic [PART_WIDTH-1:0]            part_q;
  logic [4:0]                       in_token_q, last_token;  // of the unit
  logic [23:0]                      in_block_q;   // along head_dim
  logic [PART_WIDTH-1:0]            last_part;
  logic                             full_q, pause_q, take, tail, token_in;
  logic                             exponents, exponents_q;  // are here
  logic [31:0][7:0]                 exponent_q;   // by token of the block
  logic [7:0]                       stored_q;     // of the token that is in
  logic [23:0]                      tile_q;       // keys: of the batch
  logic [4:0]                       block_token;
  logic [SLOT_WIDTH:0]              claimed_q, wanted;  // slots of units that came in but are not pushed yet
  logic                             unit_in;

  assign wanted     = values_i ? (SLOT_WIDTH + 1)'(PARTS) : (SLOT_WIDTH + 1)'(1);
  assign last_token = values_i ? 5'd31 : 5'(TILE - 1);
  assign exponents  = bytes_i & ~exponents_q;
  assign last_part  = exponents ? PART_WIDTH'(EXPONENT_BEATS - 1) : bytes_i ? PART_WIDTH'(BYTE_PARTS - 1)
                                                                            : PART_WIDTH'(PARTS - 1);
  assign ready_o    = enable_i & ~pause_q & (room_i >= claimed_q + wanted);
  assign take       = valid_i & ready_o;
  assign tail       = (in_block_q + 24'd1 == dim_blocks_i);
  assign token_in   = take & ~exponents & (part_q == last_part);
  assign unit_in    = token_in & (in_token_q == last_token);
  assign block_token = values_i ? in_token_q : 5'(tile_q * 24'(TILE)) + in_token_q;

  logic tail_q;
  always_ff @(posedge clk_i) begin
    full_q  <= 1'b0;
    pause_q <= 1'b0;
    if (take) begin
      token_q[part_q] <= beat_i;
      tail_q          <= tail;
      part_q          <= (part_q == last_part) ? '0 : part_q + 1'b1;
    end
    if (take && exponents) begin
      for (int i = 0; i < 32; i++)
        if (UNITS != 1 || part_q[0] == 1'(i / 16)) exponent_q[i] <= beat_i[8*(i%(16*int'(UNITS)))+:8];
      exponents_q <= (part_q == last_part);
    end
    if (token_in) begin
      full_q     <= 1'b1;
      pause_q    <= bytes_i & (BYTE_PARTS == 1);
      stored_q   <= exponent_q[block_token];
      in_token_q <= in_token_q + 5'd1;
    end
    if (unit_in) begin
      in_token_q  <= '0;
      exponents_q <= 1'b0;
      in_block_q  <= tail ? '0 : in_block_q + 24'd1;
      if (tail) tile_q <= (tile_q + 24'd1 == tiles_i) ? '0 : tile_q + 24'd1;
    end
    claimed_q <= claimed_q + (unit_in ? wanted : '0) - (SLOT_WIDTH + 1)'(push_o);
    if (rst_i || clear_i) begin
      part_q      <= '0;
      full_q      <= 1'b0;
      pause_q     <= 1'b0;
      exponents_q <= 1'b0;
      in_token_q  <= '0;
      in_block_q  <= '0;
      tile_q      <= '0;
      claimed_q   <= '0;
    end
  end
  always_comb begin
    elements = token_q;
    for (int i = 0; i < 32; i++) if (tail_q && 6'(i) >= dim_tail_i) elements[i] = '0;
  end

  logic              ready, quantized;
  logic [31:0][11:0] mantissa, made;
  logic [31:0][7:0]  stored;
  logic [7:0]        exp, made_exp, clipped;
  quantizer #(.ACT_BITS(12)) u_quantizer (
      .clk_i, .rst_i(rst_i | clear_i), .valid_i(full_q & ~bytes_i), .x_i(elements),
      .valid_o(quantized), .mantissa_o(made), .exp_o(made_exp));

  // A cache of bytes needs no quantiser. An exponent that no append writes reads as the nearest that one does.
  assign stored = 256'(token_q);
  always_comb begin
    clipped = stored_q;
    if (clipped < kv_pkg::LOWEST) clipped = kv_pkg::LOWEST;
    if (clipped > kv_pkg::HIGHEST) clipped = kv_pkg::HIGHEST;
    ready    = quantized;
    mantissa = made;
    exp      = made_exp;
    if (bytes_i) begin
      ready = full_q;
      exp   = clipped - 8'(kv_pkg::BIAS + 6);
      for (int i = 0; i < 32; i++) mantissa[i] = 12'($signed(stored[i]));
    end
  end

  // Four tokens are collected while the four before leave.
  logic [1:0]             count_q;
  logic [2:0]             group_in_q, group_q;       // of four tokens, in the unit
  logic [3:0][31:0][11:0] collect_q, leave_q;  // by token, element
  logic [3:0][7:0]        collect_exp_q, exp_q;
  logic                   leaving_q, begin_leave_q;
  logic [2:0]             step_q, last_group;
  logic                   unit_out;
  assign last_group = values_i ? 3'd7 : 3'(KEY_GROUPS - 1);
  assign unit_out   = leaving_q & (step_q == 3'd7) & (group_q == last_group);

  always_ff @(posedge clk_i) begin
    begin_leave_q <= 1'b0;
    if (ready) begin
      collect_q[count_q]     <= mantissa;
      collect_exp_q[count_q] <= exp;
      count_q                <= count_q + 2'd1;
      begin_leave_q          <= (count_q == 2'd3);
    end
    if (begin_leave_q) begin
      leave_q    <= collect_q;
      exp_q      <= collect_exp_q;
      group_q    <= group_in_q;
      group_in_q <= (group_in_q == last_group) ? '0 : group_in_q + 3'd1;
      leaving_q  <= 1'b1;
      step_q     <= '0;
    end else if (leaving_q) begin
      step_q    <= step_q + 3'd1;
      leaving_q <= (step_q != 3'd7);
    end
    if (rst_i || clear_i) begin
      count_q       <= '0;
      group_in_q    <= '0;
      leaving_q     <= 1'b0;
      begin_leave_q <= 1'b0;
    end
  end

  // Out: entry `step` has k 4 * step .. (keys), rows 4 * step .. (values). Four rows in the order of a tile belong to
  // one quad's half.
  logic [2:0]                   four;  // rows 4 * four ..
  logic [$clog2(8*UNITS)-1:0]   row;   // in the tile
  logic [UNITS-1:0]             quad;
  logic                         half;
  logic [3:0][3:0][11:0]        entry;
  assign four = values_i ? step_q : group_q;
  assign row  = ($clog2(8 * UNITS))'({four, 2'd0});
  always_comb begin
    half = 1'b0;
    quad = '0;
    for (int u = 0; u < int'(UNITS); u++)
      for (int h = 0; h < 2; h++)
        if (32'(row) == matrix_pkg::first_row(32'(u), 32'(h), UNITS, 2, PORT_BYTES)) begin
          quad[u] = 1'b1;
          half    = (h == 1);
        end
    for (int j = 0; j < 4; j++)
      for (int kk = 0; kk < 4; kk++)
        entry[j][kk] = values_i ? leave_q[kk][{step_q, 2'(j)}] : leave_q[j][{step_q, 2'(kk)}];
  end

  assign write_o     = leaving_q ? quad : '0;
  assign slot_o      = values_i ? slot_i + SLOT_WIDTH'({four, 2'd0} / 5'(TILE)) : slot_i;
  assign entry_o     = {values_i ? group_q : step_q, half};
  assign code_o      = {UNITS{entry}};
  assign exp_valid_o = (leaving_q && values_i && step_q == '0) ? 8'd1 << group_q : '0;
  assign exp_o       = {8{exp_q}};
  assign push_o      = unit_out ? 3'(wanted) : '0;

  for (genvar u = 0; u < int'(UNITS); u++) begin : g_quad
    for (genvar h = 0; h < 2; h++) begin : g_half
      assign write_meta_o[u][h] = leaving_q & ~values_i & (step_q == '0) & quad[u] & (half == 1'(h));
      for (genvar j = 0; j < 4; j++) begin : g_row
        assign metadata_o[u][4*h+j] = {exp_q[j], 16'd0};
      end
    end
  end

endmodule
