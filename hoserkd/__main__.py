"""`python -m hoserkd`."""

import sys

from hoserkd.cli import main

sys.exit(main())
