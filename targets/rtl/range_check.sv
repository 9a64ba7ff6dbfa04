// Whether `bytes_i` bytes from `addr_i` on lie in one memory space. Combinational.
module range_check #(
    parameter int unsigned SPACES = 1,
    parameter logic [SPACES-1:0][mem_pkg::ADDRESS_WIDTH-1:0] BASE = '0,
    parameter logic [SPACES-1:0][mem_pkg::ADDRESS_WIDTH-1:0] CAPACITY = {SPACES{40'h1000}}
) (
    input  logic [63:0] addr_i,
    input  logic [63:0] bytes_i,
    output logic        ok_o
);

  always_comb begin
    ok_o = 1'b0;
    for (int s = 0; s < int'(SPACES); s++) begin
      if (addr_i >= 64'(BASE[s]) && bytes_i <= 64'(CAPACITY[s])
          && addr_i - 64'(BASE[s]) <= 64'(CAPACITY[s]) - bytes_i) ok_o = 1'b1;
    end
  end

endmodule
