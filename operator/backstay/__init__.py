"""Backstay: application-centric backup and restore for Kubernetes."""

__version__ = "0.1.0"
