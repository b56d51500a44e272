"""The command line: one file a command, which parses, calls and prints. Errors become exit codes here and nowhere else."""

from kabench.cli.main import main

__all__ = ["main"]
