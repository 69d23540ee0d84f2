"""What Dagster alone takes: an asset of so many days that does nothing, in one run in process.

`python empty_asset.py DAGSTER_HOME DAYS` prints as JSON how long each stage took, in seconds.
"""

import json
import sys
import time


def main() -> None:
    began = time.perf_counter()
    stages: dict[str, float] = {}

    def ended(stage: str) -> None:
        stages[stage] = time.perf_counter() - began - sum(stages.values())

    home, days = sys.argv[1], int(sys.argv[2])
    import dagster as dg

    ended("import dagster")
    partitions = dg.DailyPartitionsDefinition("2026-01-01")
    last = partitions.get_partition_keys()[days - 1]

    @dg.asset(partitions_def=partitions, backfill_policy=dg.BackfillPolicy.single_run())
    def empty() -> None: ...

    definitions = dg.Definitions(assets=[empty], executor=dg.in_process_executor)
    job = definitions.resolve_implicit_global_asset_job_def()
    ended("definitions")
    with dg.DagsterInstance.from_config(home) as instance:
        ended("opening the instance")
        result = job.execute_in_process(
            instance=instance,
            tags={
                "dagster/asset_partition_range_start": "2026-01-01",
                "dagster/asset_partition_range_end": last,
            },
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
        assert len(result.asset_materializations_for_node("empty")) == days
        ended("the run")
    ended("closing the instance")
    print(json.dumps(stages))  # noqa: T201


if __name__ == "__main__":
    main()
