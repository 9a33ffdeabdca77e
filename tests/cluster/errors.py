"""What can go wrong with the test cluster, said so that the reader knows what to do next."""

from __future__ import annotations


class ClusterError(Exception):
    """The test cluster cannot do what was asked; the message says why and what helps."""


class CommandError(ClusterError):
    """A program ended with an error.

    Attributes:
        code: its exit code.
        output: what it printed, standard output and error together.
    """

    def __init__(self, what: str, code: int, output: str) -> None:
        super().__init__(f"{what}: exit code {code}\n{output.strip()}")
        self.code = code
        self.output = output
