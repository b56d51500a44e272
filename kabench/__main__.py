"""`python -m kabench`."""

import sys

from kabench.cli import main

if __name__ == "__main__":
    sys.exit(main())
