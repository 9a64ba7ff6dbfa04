"""What every layer uses: errors, debug variables, progress, paths, atomic writes. Imports nothing of dlavm."""
