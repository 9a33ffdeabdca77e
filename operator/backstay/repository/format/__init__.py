"""restic's repository format: what its files look like, and what makes them trustworthy. It knows no store."""
