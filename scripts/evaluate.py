"""The command `mfik evaluate` (mfik/cli/evaluate.py)."""

from mfik.cli.program import run_command

if __name__ == "__main__":
    run_command("evaluate")
