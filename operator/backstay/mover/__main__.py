"""`python -m backstay.mover`."""

import sys

from backstay.mover.main import main

sys.exit(main())
