"""`python -m convnet`: the same as the `convnet` command."""

import sys

from convnet.cli.main import main

sys.exit(main())
