"""Whether the repository holds what its snapshots need, and what a damage hurts."""
