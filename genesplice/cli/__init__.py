"""The command line: `genesplice VERB`. Paths on stdout, progress on stderr.

Exit codes: 0 done, 1 the work failed, 2 wrong usage or input, 130 interrupted.
"""

import importlib

from genesplice.cli.options import app, say
from genesplice.errors import GeneSpliceError
from genesplice.runtime import keep_freed_memory

__all__ = ["app", "main"]

# Their verbs appear in the help in this order.
for part in ("stages", "explain", "variants", "verdict", "notebooks"):
    importlib.import_module(f"genesplice.cli.{part}")


def main() -> None:
    """Run the command line; every expected error is one line and an exit code."""
    keep_freed_memory()
    try:
        app()
    except GeneSpliceError as error:
        say(f"genesplice: {error}")
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        say("genesplice: interrupted")
        raise SystemExit(130) from None
