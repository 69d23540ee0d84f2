"""What a home does for itself that our command line has no word for.

`materialize HOME FIRST LAST TABLE…` is `backfill` without what follows from it, and
`tick HOME SCHEDULE MOMENT` does what a schedule asks for then, as the daemon would.
"""

import sys
from datetime import UTC, date, datetime
from pathlib import Path

from crypto_assets.cli import look_for_few_cycles


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
    look_for_few_cycles()
    {"materialize": materialize, "tick": tick}[sys.argv[1]](*sys.argv[2:])
