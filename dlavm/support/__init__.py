"""For every layer: errors, debug variables, progress, paths, atomic writes. Imports nothing of dlavm."""
