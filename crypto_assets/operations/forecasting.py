"""What a backfill would cost, and what the month has cost so far, in words."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import date

from crypto_assets.assets.planning import FetchPlan, beyond_budget, fetch_plan
from crypto_assets.assets.platform import Platform
from crypto_assets.operations.running import refuse_impossible
from crypto_assets.settings import Settings


@dataclass(frozen=True)
class Forecast:
    """The calls of a backfill, and what they mean."""

    plan: FetchPlan
    sentences: tuple[str, ...]


def forecast(settings: Settings, tables: Sequence[str], days: tuple[date, date]) -> Forecast:
    """Return what filling tables for days [first, last] would ask for; makes no call."""
    refuse_impossible(settings, tables, days)
    platform = Platform(settings)
    with closing(platform):
        plan = fetch_plan(platform, tables, *days, settings.clock.now())
        return Forecast(plan, tuple(_sentences(platform, plan)))


def _sentences(platform: Platform, plan: FetchPlan) -> list[str]:
    name = platform.plan.name
    minutes = plan.minutes(platform.plan)
    duration = ""
    if minutes is not None:
        rate = platform.plan.calls_per_minute
        duration = f", at {rate} calls a minute about {max(minutes, 0.1):,.1f} minutes"
    said = [f"{plan.calls:,} calls, {plan.credits:,} CoinGecko credits (plan '{name}'){duration}."]
    if plan.is_guess:
        said.append(
            "The coins of these days are not known yet: counted with universe.tracked of them."
        )
    if plan.unreachable_days:
        said.append(
            f"{plan.unreachable_days:,} days of coins are older than the "
            f"{platform.plan.history_days} days of the plan and can't be had."
        )
    problem = beyond_budget(platform, plan)
    if problem:
        said.append(f"A run would be refused: {problem}.")
    return said
