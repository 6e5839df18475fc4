"""Wire formats as bytes and values: no I/O, no clock."""
