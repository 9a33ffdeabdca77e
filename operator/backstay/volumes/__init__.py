"""Volumes: what a claim is, how its data are read or filled, and the mover Jobs that do it."""
