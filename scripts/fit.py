"""The command `mfik fit` (mfik/cli/fit.py)."""

from mfik.cli.program import run_command

if __name__ == "__main__":
    run_command("fit")
