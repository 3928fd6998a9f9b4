"""`python -m gradbench` is the command `gradbench`."""

import sys

if not sys.flags.safe_path:
    del sys.path[0]  # the working folder: modules of Python's names in it would run here

from gradbench.cli import main

if __name__ == "__main__":
    main()
