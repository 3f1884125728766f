"""The command `mfik export` (mfik/cli/export.py)."""

from mfik.cli.program import run_command

if __name__ == "__main__":
    run_command("export")
