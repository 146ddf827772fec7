"""`python -m megbrain_py.distributed.program FILE ...`: a program as a rank of MPI.

As `python FILE ...`, but when it leaves by sys.exit with an error the other ranks end as well; an
exception ends them anyway (start.py).
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from megbrain_py.distributed.start import abort


def main(words: list[str]) -> None:
    """Run the program whose file and arguments these are."""
    sys.argv = words
    sys.path[0] = str(Path(words[0]).resolve().parent)
    try:
        runpy.run_path(words[0], run_name="__main__")
    except SystemExit as left:
        if left.code not in (None, 0):
            if isinstance(left.code, str):
                print(left.code, file=sys.stderr)
            sys.stdout.flush()
            sys.stderr.flush()
            abort(f"sys.exit({left.code!r})")
        raise


if __name__ == "__main__":
    main(sys.argv[1:])
