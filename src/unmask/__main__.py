"""Run the command line as `python -m unmask`."""

import sys

from unmask.cli.main import main

sys.exit(main())
