"""Planning on plain integers: the order of tasks, and the offsets of buffers. Knows no graph."""
