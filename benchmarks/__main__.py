"""`python -m benchmarks --out FILE.json [--peers]`."""

import argparse
import shlex
import sys
from pathlib import Path

from benchmarks import write_bench
from genesplice.errors import GeneSpliceError


def main() -> None:
    """Measure, write the JSON file and a page of the same name, print their paths."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    parser.add_argument("--peers", action="store_true", help="run enformer-pytorch too")
    given = parser.parse_args()
    command = shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])
    try:
        written = write_bench(
            given.out,
            with_peers=given.peers,
            command=command,
            tell=lambda text: print(text, file=sys.stderr),
        )
    except GeneSpliceError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    print(written)


if __name__ == "__main__":
    main()
