"""`crypto-assets …` in a home whose sandbox runs already: it starts none of its own.

In a live home it would not either; so what is measured is what it takes there. Two words more:
`materialize HOME FIRST LAST TABLE…` is `backfill` without what follows from it, and
`tick HOME SCHEDULE MOMENT` does what a schedule asks for then, as the daemon would.
"""

import sys
from contextlib import nullcontext
from datetime import UTC, date, datetime
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


def tick(home: str, schedule: str, moment: str) -> None:
    """Evaluate a schedule and run what it asks for."""
    import dagster as dg

    from crypto_assets.definitions import build_definitions
    from crypto_assets.operations.home import open_instance
    from crypto_assets.settings import load_settings

    settings = load_settings(Path(home))
    definitions = build_definitions(settings)
    asking = definitions.resolve_schedule_def(schedule)
    with open_instance(settings) as instance:
        with dg.build_schedule_context(
            instance,
            datetime.fromisoformat(moment).replace(tzinfo=UTC),
            repository_def=definitions.get_repository_def(),
        ) as context:
            (request,) = asking.evaluate_tick(context).run_requests or ()
        definitions.resolve_job_def(asking.job_name).execute_in_process(
            instance=instance,
            asset_selection=request.asset_selection,
            tags=request.tags,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )


if __name__ == "__main__":
    if sys.argv[1] == "materialize":
        materialize(*sys.argv[2:])
    elif sys.argv[1] == "tick":
        tick(*sys.argv[2:])
    else:
        sandboxed.with_providers = nullcontext  # type: ignore[assignment]
        main()
