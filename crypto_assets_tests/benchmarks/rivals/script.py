"""What a quant writes in an afternoon: a session, a loop, a frame, a table.

`python script.py BASE_URL DATABASE COINS DAYS` brings daily prices and market caps of the largest
coins, and the running day's from the list of coins, in as many calls as there are coins and pages.
"""

import os
import sys
import time
from collections.abc import Iterator
from urllib.parse import quote

import duckdb
import pandas as pd
import requests

PAGE = 250


def market_pages(base_url: str, coins: int, session: requests.Session) -> Iterator[list[dict]]:
    """Yield the largest coins as they are now, 250 a page."""
    for page in range(1, -(-coins // PAGE) + 1):
        answer = session.get(
            f"{base_url}/coins/markets",
            params={
                "vs_currency": "usd",
                "order": "market_cap_desc",
                "per_page": min(PAGE, coins),
                "page": page,
            },
            timeout=30,
        )
        answer.raise_for_status()
        yield answer.json()


def chart(base_url: str, coin_id: str, days: int, session: requests.Session) -> dict:
    """Return a coin's daily history as it is told."""
    answer = session.get(
        f"{base_url}/coins/{quote(coin_id, safe='')}/market_chart",
        params={"vs_currency": "usd", "days": days, "interval": "daily"},
        timeout=30,
    )
    answer.raise_for_status()
    return answer.json()


def running_day(markets: list[dict], today: pd.Timestamp) -> pd.DataFrame:
    """Return the rows of the day that is not over."""
    frame = pd.DataFrame(markets)[["id", "current_price", "market_cap"]]
    frame = frame.set_axis(["coin_id", "price_usd", "market_cap_usd"], axis="columns")
    frame.insert(0, "date", today)
    return frame[frame["price_usd"] > 0]


def closes(coin_id: str, told: dict) -> pd.DataFrame:
    """Return a coin's closes: a stamp at midnight is the close of the day before."""
    prices = pd.DataFrame(told["prices"], columns=["stamp", "price_usd"])
    caps = pd.DataFrame(told["market_caps"], columns=["stamp", "market_cap_usd"])
    frame = prices.merge(caps, on="stamp", how="left")
    stamps = pd.to_datetime(frame["stamp"], unit="ms")
    frame = frame.assign(date=stamps - pd.Timedelta(days=1), coin_id=coin_id)
    frame = frame[(stamps == stamps.dt.normalize()) & (frame["price_usd"] > 0)]
    return frame[["date", "coin_id", "price_usd", "market_cap_usd"]]


def fetched(base_url: str, coins: int, days: int) -> pd.DataFrame:
    """Return all rows, one call after the other."""
    with requests.Session() as session:
        session.headers["x-cg-pro-api-key"] = os.environ.get("COINGECKO_API_KEY", "")
        markets = [row for page in market_pages(base_url, coins, session) for row in page]
        today = pd.Timestamp(markets[0]["last_updated"]).tz_localize(None).normalize()
        frames = [running_day(markets, today)]
        frames += [
            closes(coin["id"], chart(base_url, coin["id"], days, session)) for coin in markets
        ]
    return pd.concat(frames, ignore_index=True)


def main() -> None:
    base_url, database, coins, days = sys.argv[1:]
    began = time.perf_counter()
    rows = fetched(base_url, int(coins), int(days))
    with duckdb.connect(database) as connection:
        connection.execute("CREATE OR REPLACE TABLE market_caps AS SELECT * FROM rows")
    print(  # noqa: T201
        f"{len(rows)} rows in {time.perf_counter() - began:.3f} s"
    )


if __name__ == "__main__":
    main()
