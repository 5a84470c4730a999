"""`python -m jaxinv`: check this device, measure it, or look for what does harm."""

import sys

from jaxinv._cli.main import main

if __name__ == "__main__":
    sys.exit(main())
