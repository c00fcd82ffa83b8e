"""In-step reading of the log, membership, marks and commits."""
