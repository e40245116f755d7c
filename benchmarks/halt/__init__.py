"""A halt is a halt: nothing commits after its acknowledgement."""
