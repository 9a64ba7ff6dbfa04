"""`python -m dlavm` is `dlavm`."""

from __future__ import annotations

import sys

from dlavm.cli import main

if __name__ == "__main__":
    sys.exit(main())
