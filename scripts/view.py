"""The command `mfik view` (mfik/cli/view.py)."""

from mfik.cli.program import run_command

if __name__ == "__main__":
    run_command("view")
