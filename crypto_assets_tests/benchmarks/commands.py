"""`crypto-assets …` in a home whose sandbox runs already: it starts none of its own.

In a live home it would not either; so what is measured is what it takes there. Beside its commands
there is `materialize HOME FIRST LAST TABLE…`, which is `backfill` without what follows from it.
"""

import sys
from contextlib import nullcontext
from datetime import date
from pathlib import Path

from crypto_assets.cli import main
from crypto_assets.operations import sandboxed


def materialize(home: str, first: str, last: str, *tables: str) -> None:
    """Fill some tables and nothing else."""
    from crypto_assets.operations import running
    from crypto_assets.operations.home import open_instance
    from crypto_assets.settings import load_settings

    settings = load_settings(Path(home))
    asked = date.fromisoformat(first), date.fromisoformat(last)
    with open_instance(settings) as instance:
        running.refuse_beyond_budget(settings, tables, asked)
        report = running.run(settings, instance, tables, asked, lambda *_: None)
    if not report.succeeded:
        sys.exit(f"{report.failures}")


if __name__ == "__main__":
    if sys.argv[1] == "materialize":
        materialize(*sys.argv[2:])
    else:
        sandboxed.with_providers = nullcontext  # type: ignore[assignment]
        main()
