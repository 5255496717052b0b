"""`python -m minidat` is the `minidat` command."""

import sys

from .commands import main

sys.exit(main())
