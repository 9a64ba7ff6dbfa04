"""Cycles over a grid of boards, buffers, formats, depths and chunks, on processes of this machine or a Ray cluster."""
