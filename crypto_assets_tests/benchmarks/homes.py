"""Homes that are measured, and the sandbox they ask, in a process of its own.

A sandbox home's settings name the sandbox that serves the contenders, too, so that our command
line starts no other one beside it.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import requests
import yaml

from crypto_assets_tests.benchmarks.measuring import python

SEED = 7
KEY = "CG-sandbox-bench"
CLOCK = datetime(2026, 3, 10, 12, 20)
"""A Tuesday noon: all of Monday is final."""


@dataclass
class Sandbox:
    """The providers, as the contenders see them."""

    url: str
    plan: str
    now: datetime

    @property
    def coingecko(self) -> str:
        """The base URL of CoinGecko's API."""
        return f"{self.url}/coingecko/api/v3"

    def at(self, moment: datetime) -> None:
        """Let it be this moment for the providers."""
        self._post("clock", {"now": moment.isoformat()})
        self.now = moment

    def calls(self) -> dict[str, int]:
        """Return all calls by endpoint and status since they were last asked for."""
        answer = requests.get(f"{self.url}/_sandbox/stats", timeout=60)
        answer.raise_for_status()
        self._post("reset", None)
        return {
            f"{endpoint.removeprefix('coingecko/')} {status}": count
            for endpoint, by_status in answer.json()["calls"].items()
            for status, count in by_status.items()
        }

    def total(self) -> int:
        """Return how many there were; they are not forgotten by it."""
        return int(requests.get(f"{self.url}/_sandbox/stats", timeout=60).json()["total"])

    def _post(self, what: str, content: Any) -> None:
        requests.post(f"{self.url}/_sandbox/{what}", json=content, timeout=60).raise_for_status()


@contextmanager
def sandbox(
    now: datetime = CLOCK, plan: str = "unlimited", latency_seconds: float = 0.0
) -> Iterator[Sandbox]:
    """Yield the providers while they run in a process of their own."""
    command = python("-m", "crypto_assets", "sandbox", "--port", "0", "--attached")
    command += ["--seed", str(SEED), "--plan", plan, "--latency", str(latency_seconds)]
    command += ["--clock", now.isoformat(timespec="seconds")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Sandbox(process.stdout.readline().strip(), plan, now)
        finally:
            process.stdin.close()
            process.wait()


def new_home(home: Path, providers: Sandbox, coins: int, start: date) -> Path:
    """Write the settings of a home that asks these providers, at their time, and return it."""
    home.mkdir(parents=True, exist_ok=True)
    tree: dict[str, Any] = {
        "sandbox": {"seed": SEED, "clock": providers.now.isoformat()},
        "coingecko": {
            "plan": providers.plan,
            "base_url": providers.coingecko,
            "api_key": KEY,
        },
        "alternative_me": {"base_url": f"{providers.url}/alternative_me"},
        "farside": {"base_url": f"{providers.url}/farside"},
        "universe": {"tracked": coins, "always": [], "headline": ["bitcoin"]},
        "history": {"start": start.isoformat()},
        "schedules": {"enabled": False},
    }
    (home / "crypto_assets.yaml").write_text(yaml.safe_dump(tree))
    return home


def set_clock(home: Path, moment: datetime) -> None:
    """Let it be this moment for a home, as it is for its providers."""
    file = home / "crypto_assets.yaml"
    tree = yaml.safe_load(file.read_text())
    tree["sandbox"]["clock"] = moment.isoformat()
    file.write_text(yaml.safe_dump(tree))


def command(*words: object) -> list[str]:
    """Return what our command line has no word for as a command."""
    return python("-m", "crypto_assets_tests.benchmarks.commands", *map(str, words))


def backfill(home: Path, *tables: str, first: date, last: date) -> list[str]:
    """Return the command that fills tables for some days."""
    words = ("backfill", *tables, "--from", str(first), "--to", str(last), "--home", str(home))
    return python("-m", "crypto_assets", *words)
