"""How long it takes until anything happens: `crypto-assets --help`, and loading the definitions.

What is loaded, which holds on every machine, is in the tests.
"""

from functools import partial

from crypto_assets_tests.benchmarks.measuring import Figures, in_turns, measured, python
from crypto_assets_tests.benchmarks.results import Result, spread
from crypto_assets_tests.benchmarks.suite import Setup

LIBRARIES = "import dagster, pandas, duckdb"
DEFINITIONS = "import crypto_assets.definitions"
BUILDING = f"{DEFINITIONS} as d; from crypto_assets.settings import load_settings as s; " + (
    "d.build_definitions(s())"
)


def loading(setup: Setup) -> Result:
    """Start our command line and load the definitions, beside the libraries alone."""
    commands = {
        "Python alone": ("-c", "pass"),
        "crypto-assets --help": ("-m", "crypto_assets", "--help"),
        LIBRARIES: ("-c", LIBRARIES),
        DEFINITIONS: ("-c", DEFINITIONS),
        "and building them": ("-c", BUILDING),
    }
    contenders = {name: partial(_loaded, *words) for name, words in commands.items()}
    if not setup.is_quick:
        in_turns(contenders, 1)  # what is read for the first time is compiled
    result = Result(in_turns(contenders, setup.repeats))
    for name in contenders:
        if name != LIBRARIES:
            share = spread(result.ratio(name, LIBRARIES))
            result.notes.append(f"{name}: {share} of the libraries.")
    return result


def _loaded(*words: str) -> Figures:
    return measured(python(*words)).figures
