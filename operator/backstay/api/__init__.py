"""The kinds as typed Python: parse, defaults, conditions. No input or output, nothing of ours imported."""
