"""What a run learnt, as one HTML page: curves, examples, confusion, tables."""
