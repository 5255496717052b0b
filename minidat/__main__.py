"""`python -m minidat` is the `minidat` command."""

import sys

from .cli import main

sys.exit(main())
