"""`python -m convnet`: the same as the `convnet` command."""

import sys

from convnet.cli import main

sys.exit(main())
