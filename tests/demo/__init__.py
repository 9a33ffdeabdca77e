"""The main job on real input: a shop is backed up while it sells, destroyed, and brought back, each step proven.

`python -m tests.demo` is the whole of it; `__main__` reads as the story. Every command that it shows is the command
that it runs.
"""
