"""A child that does what its first argument says: see test_limited."""

import json
import os
import sys
import time
from pathlib import Path

from app.confinement import confine


def main() -> None:
    what, path, memory_bytes, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    confine(memory_bytes, seconds)
    if what == "sleep":
        time.sleep(3600)
    if what == "spin":
        while True:
            pass
    if what == "eat":
        bytearray(10 * memory_bytes)
    if what == "write":
        Path(path).write_bytes(b"x")
    if what == "flood":
        sys.stdout.write("x" * 10_000_000)
    print(json.dumps(dict(os.environ)) if what == "tell" else "[]")


if __name__ == "__main__":
    main()
