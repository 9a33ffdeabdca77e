"""Out of the repository: trees become directories again, images become devices or files."""
