"""`python -m megbrain_py` is the program `megbrain`."""

import sys

from megbrain_py.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
