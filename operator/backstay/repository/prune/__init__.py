"""What may go: which snapshots a policy keeps, and what no snapshot needs any more."""
