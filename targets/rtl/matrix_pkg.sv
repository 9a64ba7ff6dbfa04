// Which rows of a tile a quad works on (doc/architecture.md, "Layouts"). A slice of a channel's rows fills two beats of
// the channel. With HALVES = 2 a beat of weights is one beat row and a quad has four rows of the first half of its
// channel's and four of the second; with HALVES = 1 it is two beat rows, a slice, and a quad has four rows.
package matrix_pkg;

  // The first of a quad's four rows of a half. `beat_bytes`: a channel's share of a beat row.
  function automatic int unsigned first_row(input int unsigned quad, input int unsigned half, input int unsigned quads,
                                            input int unsigned halves, input int unsigned beat_bytes);
    int unsigned place, side;
    place     = (halves == 2) ? quad : quad % (quads / 2);
    side      = (halves == 2) ? half : quad / (quads / 2);
    first_row = place / (beat_bytes / 16) * (beat_bytes / 2) + side * (beat_bytes / 4) + place % (beat_bytes / 16) * 4;
  endfunction

  // Heads of this unit of values: no more than 2^most, nor than are left of the batch.
  function automatic logic [2:0] heads_here(input logic [1:0] most, input logic [11:0] left);
    heads_here = (left < (12'd1 << most)) ? left[2:0] : 3'd1 << most;
  endfunction

endpackage
