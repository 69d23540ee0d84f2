"""A few minutes of the real thing: `crypto-assets up` with short crons, watched from outside."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import dagster as dg
import pytest
from dagster._core.scheduler.instigation import InstigatorState, ScheduleInstigatorData

import crypto_assets
from crypto_assets.monitoring.metrics import FILE_NAME
from crypto_assets_tests.end_to_end.platforms import COINS, Site, eventually, open_site
from crypto_assets_tests.operations.commands import spawn
from crypto_assets_tests.webhook import Webhook, open_webhook

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SUCCESS = dg.DagsterRunStatus.SUCCESS
SENSORS = {"stale_days", "healing", "watch", "dead_runs"}


@dataclass
class Watched:
    """A platform that is up, and the channel of its alerts."""

    site: Site
    hook: Webhook

    def ended(self, job: str) -> list[dg.RunRecord]:
        """The runs of a job that succeeded."""
        filters = dg.RunsFilter(job_name=job, statuses=[SUCCESS])
        return list(self.site.instance.get_run_records(filters))

    def told(self, text: str) -> bool:
        """Whether a message with this text has arrived."""
        return any(text in m["title"] + m["message"] for m in self.hook.messages)

    def ticked(self) -> set[str]:
        """The sensors and schedules that have ticked."""
        instance = self.site.instance
        return {
            state.instigator_name
            for state in instance.all_instigator_state()
            if instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1)
        }


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, market: object) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("site")
    with open_webhook() as hook, open_site(folder, market) as site:  # type: ignore[arg-type]
        sections = {
            "alerts": {"urls": [hook.url]},
            "fetch": {"threads": 2, "retry_budget_seconds": 1},
        }
        minutely = dict.fromkeys(("market_refresh", "fear_greed", "status_report"), "* * * * *")
        site.write_settings(sections, **minutely)
        done = spawn("refresh", "--home", site.home, cwd=folder)
        assert done.code == 0, done.err
        # Sensors look at once when a daemon starts, and healing every five minutes from then on.
        with site.warehouse.session("a test") as connection:
            connection.execute("DELETE FROM ohlc_daily WHERE date = ?", [site.last])
        site.up()
        yield Watched(site, hook)


def test_schedules_tick_and_their_runs_succeed(watched: Watched) -> None:
    for job in ("market_refresh", "fear_greed_refresh"):
        eventually(f"a run of {job}", 150, lambda job=job: watched.ended(job))


def test_every_sensor_ticks(watched: Watched) -> None:
    eventually("the sensors", 90, lambda: watched.ticked() >= SENSORS)
    metrics = watched.site.home / FILE_NAME
    eventually("the figures", 90, metrics.exists)
    assert "crypto_assets_table_rows" in metrics.read_text()


def test_a_failure_is_told_once_and_so_is_its_end(watched: Watched) -> None:
    watched.site.server.faults.add(
        {"kind": "status", "code": 503, "match": {"provider": "coingecko"}}
    )
    eventually("the alert", 180, lambda: watched.told("the job market_refresh fails"))
    watched.site.server.faults.clear()
    eventually("its end", 180, lambda: watched.told("over: the job market_refresh fails"))
    texts = [m["title"] + m["message"] for m in watched.hook.messages]
    # A report may name it too, in a message of its own.
    told = [text for text in texts if "## Tables" not in text]
    assert sum(text.count("over: the job market_refresh fails") for text in told) == 1
    assert sum(text.count("the job market_refresh fails") for text in told) == 2


def test_the_report_of_the_day_arrives(watched: Watched) -> None:
    eventually("the report", 120, lambda: watched.told("## Tables"))
    assert list((watched.site.home / "reports").glob("status-*.md"))


def test_a_lost_day_is_healed(watched: Watched) -> None:
    site = watched.site

    def published() -> list[tuple[str, float]]:
        with crypto_assets.connect(site.home) as connection:
            return connection.execute(
                "SELECT coin_id, close FROM ohlc_daily WHERE date = ? ORDER BY 1", [site.last]
            ).fetchall()

    # Where its first look met a run that wrote, the next one comes after five minutes.
    eventually("the lost day", 400, lambda: len(published()) == COINS)
    # It publishes before it has ended.
    eventually("the end of the run", 60, lambda: watched.ended("healing_refresh"))
    truth = site.server.market
    for coin, close in published():
        assert close == pytest.approx(
            float(truth.daily(coin, site.last, site.last)["price_usd"][0])
        )


def test_ticks_missed_while_it_was_off_are_caught_up_once(watched: Watched) -> None:
    site = watched.site
    site.started[-1].end()
    instance = site.instance
    (state,) = (
        s for s in instance.all_instigator_state() if s.name == "fear_greed_refresh_schedule"
    )
    _set_back(instance, state, seconds=3600)
    before = {run.dagster_run.run_id for run in watched.ended("fear_greed_refresh")}
    started = time.time()
    site.up()
    eventually(
        "the run that catches up",
        150,
        lambda: {r.dagster_run.run_id for r in watched.ended("fear_greed_refresh")} - before,
    )
    ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id)
    # Sixty were missed; one of them is made up for, the others are those of the minutes since.
    missed = [tick for tick in ticks if tick.timestamp < started - 60]
    assert missed == []
    assert len(ticks) <= 2 + (time.time() - started) // 60


def _set_back(instance: dg.DagsterInstance, state: InstigatorState, seconds: float) -> None:
    """Let the schedule have been started so long ago, and never have ticked since."""
    now = time.time()
    instance.purge_ticks(state.instigator_origin_id, state.selector_id, before=now)
    data = state.instigator_data
    assert isinstance(data, ScheduleInstigatorData)
    past = ScheduleInstigatorData(data.cron_schedule, start_timestamp=now - seconds)
    instance.update_instigator_state(state.with_data(past))
