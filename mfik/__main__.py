"""`python -m mfik`, the program `mfik`."""

from mfik.cli.program import main

if __name__ == "__main__":
    main()
