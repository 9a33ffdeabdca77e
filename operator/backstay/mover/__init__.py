"""What runs inside a mover pod: it carries volumes between a mount and the repository. Knows nothing of Kubernetes."""
