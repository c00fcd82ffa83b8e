"""One file for each role: what it wires is drawn at its top. Only roles know several rooms at once."""
