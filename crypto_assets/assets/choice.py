"""What a person may choose in the launchpad for assets that are fetched coin by coin."""

from collections.abc import Mapping
from datetime import date

import dagster as dg
from pydantic import Field

from crypto_assets.assets.universe import Tracked


class FetchChoice(dg.Config):
    """What is asked for of the chosen days; as it stands, all that is missing or not final."""

    coins: list[str] = Field(
        default=[],
        description=(
            "CoinGecko ids, for example [bitcoin, solana]: only these of the tracked coins are "
            "asked for, the others keep what is stored. Empty: all tracked coins. A market "
            "snapshot of the running day always holds all of them."
        ),
    )
    force: bool = Field(
        default=False,
        description=(
            "Ask again for final values, too; each call costs its credit. What the provider has "
            "changed is written and kept in the table restatements. Closes that a snapshot told "
            "at midnight can't be asked for again."
        ),
    )

    def of(self, tracked: Mapping[date, Tracked]) -> frozenset[str]:
        """Return the chosen ones of the tracked coins."""
        known = frozenset(coin for of_day in tracked.values() for coin in of_day.coins)
        return known & frozenset(self.coins) if self.coins else known

    def refuse_unknown(self, tracked: Mapping[date, Tracked]) -> None:
        """Raise `dagster.Failure` for chosen coins that are tracked on none of the days."""
        unknown = sorted(set(self.coins) - self.of(tracked))
        if unknown:
            raise dg.Failure(
                f"not tracked on the days asked for: {', '.join(unknown)}. Choose CoinGecko ids of "
                "tracked coins (table market_caps; on free plans hourly candles are for the "
                "setting universe.headline only), or add them to the setting universe.always",
                allow_retries=False,
            )


EVERYTHING = FetchChoice()
