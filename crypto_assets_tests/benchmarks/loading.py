"""How long it takes until anything happens: `crypto-assets --help`, and loading the definitions.

Run `python -m crypto_assets_tests.benchmarks.loading`. Loads in processes of their own, in turns,
so that what the machine does beside slows all alike; medians and their ratio are printed, none is
asserted: what is loaded, which holds on every machine, is in the tests.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time

import click

LIBRARIES = "import dagster, pandas, duckdb"
DEFINITIONS = "import crypto_assets.definitions"
BUILDING = f"{DEFINITIONS} as d; from crypto_assets.settings import load_settings as s; " + (
    "d.build_definitions(s())"
)


def seconds(*words: str) -> float:
    """Return how long a Python process takes, in an empty folder."""
    # As people run it: with their own settings out of the way, and compiled code kept.
    ours = ("CRYPTO_ASSETS_", "PYTHONDONTWRITEBYTECODE")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-W", "ignore", *words],
            cwd=folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            check=True,
        )
        return time.perf_counter() - began


@click.command()
@click.option("--rounds", default=11, show_default=True, help="How often each is loaded.")
def bench(rounds: int) -> None:
    """Measure loading."""
    measured = {
        "Python alone": ("-c", "pass"),
        "crypto-assets --help": ("-m", "crypto_assets", "--help"),
        LIBRARIES: ("-c", LIBRARIES),
        DEFINITIONS: ("-c", DEFINITIONS),
        "and building them": ("-c", BUILDING),
    }
    for words in measured.values():
        seconds(*words)  # what is read for the first time is compiled, or comes from the disk
    taken: dict[str, list[float]] = {name: [] for name in measured}
    for _ in range(rounds):
        for name, words in measured.items():
            taken[name].append(seconds(*words))
    medians = {name: statistics.median(found) for name, found in taken.items()}
    for name, median in medians.items():
        click.echo(f"{name}: {median:.2f} s, {median / medians[LIBRARIES]:.2f} of the libraries")


if __name__ == "__main__":
    bench()
