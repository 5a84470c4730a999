"""`python -m jaxinv`: check this device, or measure it."""

import sys

from jaxinv._cli.main import main

if __name__ == "__main__":
    sys.exit(main())
