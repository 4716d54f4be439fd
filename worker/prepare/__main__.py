"""`python -m worker.prepare`: prepares backbones ahead of the first job that needs them."""

import logging

from worker.prepare.command import main

if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    raise SystemExit(main())
