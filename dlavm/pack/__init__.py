"""The artifact: its manifest, how it is written and read, and the layout of packed weights."""
