"""All measurements of the running system: `python -m benchmarks`."""

from __future__ import annotations

import sys

from pipelines import cli

if __name__ == "__main__":
    sys.exit(cli.main(["bench", *sys.argv[1:]]))
