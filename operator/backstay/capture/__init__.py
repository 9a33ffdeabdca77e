"""Capture: from the policy's wish to a restore point: which objects, which volumes, cut when, committed how."""
