"""Front ends: what a user names as MODEL becomes a graph builder and a source of weights."""
