// Where the units of a request stand: their memory space, its first row, the unit in that row, how many rows they
// touch. `ok_o` is low where one of them is outside of the space that holds the first. Combinational.
//
// A space is a power of two of bytes in a row, its base and capacity whole rows.
module address_map #(
    parameter int unsigned UNITS = 2,
    parameter int unsigned SPACES = 1,
    parameter logic [SPACES-1:0][mem_pkg::ADDRESS_WIDTH-1:0] BASE = '0,
    parameter logic [SPACES-1:0][mem_pkg::ADDRESS_WIDTH-1:0] CAPACITY = {SPACES{40'h1000}},
    localparam int unsigned SPACE_WIDTH = mem_pkg::index_width(SPACES),
    localparam int unsigned OFFSET_WIDTH = mem_pkg::index_width(UNITS)
) (
    input  logic [mem_pkg::ADDRESS_WIDTH-1:0] addr_i,  // a multiple of 16
    input  logic [mem_pkg::COUNT_WIDTH-1:0]   units_i,
    output logic                              ok_o,
    output logic [SPACE_WIDTH-1:0]            space_o,
    output logic [mem_pkg::ROW_WIDTH-1:0]     row_o,
    output logic [OFFSET_WIDTH-1:0]           offset_o,
    output logic [mem_pkg::COUNT_WIDTH:0]     rows_o
);

  localparam int unsigned WIDTH = mem_pkg::ADDRESS_WIDTH;
  localparam int unsigned ROW_SHIFT = 4 + $clog2(UNITS);

  logic [WIDTH:0]   bytes;
  logic [WIDTH-1:0] place;
  assign bytes = {{(WIDTH - mem_pkg::COUNT_WIDTH - 3){1'b0}}, units_i, 4'd0};

  always_comb begin
    ok_o    = 1'b0;
    space_o = '0;
    place  = addr_i;
    for (int s = 0; s < int'(SPACES); s++) begin
      if (addr_i >= BASE[s] && {1'b0, addr_i - BASE[s]} + bytes <= {1'b0, CAPACITY[s]}) begin
        ok_o    = 1'b1;
        space_o = SPACE_WIDTH'(s);
        place  = addr_i - BASE[s];
      end
    end
  end

  assign offset_o = (UNITS > 1) ? OFFSET_WIDTH'(place >> 4) : '0;
  assign row_o    = mem_pkg::ROW_WIDTH'(place >> ROW_SHIFT);
  assign rows_o   = (mem_pkg::COUNT_WIDTH + 1)'(({2'b0, units_i} + 26'(offset_o) + 26'(UNITS - 1)) >> $clog2(UNITS));

endmodule
