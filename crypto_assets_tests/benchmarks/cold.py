"""A new home: daily prices and market caps of the largest coins, and the running day."""

import shutil
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import pandas as pd

from crypto_assets_tests.benchmarks import homes
from crypto_assets_tests.benchmarks.contenders import (
    ALONE,
    DLT,
    FLOOR,
    OURS,
    SCRIPT,
    STOCK,
    Case,
    Contender,
    installed,
)
from crypto_assets_tests.benchmarks.homes import CLOCK
from crypto_assets_tests.benchmarks.measuring import Figures, in_turns
from crypto_assets_tests.benchmarks.results import Goal, Result, ratios
from crypto_assets_tests.benchmarks.suite import Setup

# Just after midnight, when a snapshot of the market is the close of the day before.
NEXT_DAY = timedelta(hours=11, minutes=45)


def cold(setup: Setup) -> Result:
    """Fill 250 coins x 90 days and the running day from nothing, and ask again the next day."""
    coins, days = (5, 4) if setup.is_quick else (250, 90)
    names = (OURS, SCRIPT, DLT, STOCK, FLOOR) if setup.is_quick else _EVERYBODY
    contenders = installed(names)
    result = Result(notes=_absent(contenders))
    with homes.sandbox() as providers:
        case = Case(setup.folder, providers, coins, days)
        runs = {name: partial(_anew, case, name, one) for name, one in contenders.items()}
        if not setup.is_quick:
            in_turns(runs, 1)  # what is read for the first time is compiled, or comes from the disk
        result.samples = in_turns(runs, setup.repeats)
        result.notes.append(f"All stored the same {_same_rows(case, contenders):,} rows.")
        providers.at(CLOCK + NEXT_DAY)
        homes.set_clock(case.folder / OURS, providers.now)
        for name in (OURS,) if setup.is_quick else (OURS, SCRIPT, DLT):
            if name in contenders:
                contenders[name].run(case, case.folder / name)
                calls = sum(providers.calls().values())
                result.notes.append(f"The next day, {name}: {calls} calls.")
    for name in (OURS, ALONE):
        if name in contenders:
            result.goals += _goals(name, result)
    return result


def limited(setup: Setup) -> Result:
    """Fill 300 coins x 90 days at 250 calls a minute; one round for every five."""
    coins, days = (5, 4) if setup.is_quick else (300, 90)
    contenders = installed((ALONE, SCRIPT) if setup.is_quick else (ALONE, SCRIPT, DLT))
    result = Result(notes=[] if setup.is_quick else _absent(contenders))
    with homes.sandbox(plan="basic") as providers:
        case = Case(setup.folder, providers, coins, days)
        runs = {name: partial(_until_refused, case, name, one) for name, one in contenders.items()}
        result.samples = in_turns(runs, max(1, setup.repeats // 5))
        ended = {
            name: one
            for name, one in contenders.items()
            if not any(result.figures(name, "exit_code"))
        }
        rows = _same_rows(case, ended)
    result.notes.append(f"{', '.join(ended)} stored the same {rows:,} rows.")
    result.goals.append(Goal("calls of ours in vain", result.figures(ALONE, "refused_calls"), 0))
    return result


_EVERYBODY = (OURS, ALONE, SCRIPT, DLT, STOCK, FLOOR)


def _absent(contenders: dict[str, Contender]) -> list[str]:
    return [] if DLT in contenders else ["dlt is not installed (extra bench): left out."]


def _emptied(case: Case, name: str, contender: Contender) -> Path:
    folder = case.folder / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    contender.prepare(case, folder)
    return folder


def _anew(case: Case, name: str, contender: Contender) -> Figures:
    folder = _emptied(case, name, contender)
    done = contender.run(case, folder)
    calls = {"calls": float(sum(case.providers.calls().values()))}
    step = {"step_seconds": contender.step(folder, done)} if contender.step else {}
    return done.figures | step | calls


def _until_refused(case: Case, name: str, contender: Contender) -> Figures:
    done = contender.run(case, _emptied(case, name, contender), may_fail=True)
    calls = case.providers.calls()
    refused = sum(count for status, count in calls.items() if status.endswith(" 429"))
    return done.figures | {
        "calls": float(sum(calls.values())),
        "refused_calls": float(refused),
        "exit_code": float(done.exit_code),
    }


def _same_rows(case: Case, contenders: dict[str, Contender]) -> int:
    """Return how many rows each stored; raises `AssertionError` where they differ."""
    storing = {name: one for name, one in contenders.items() if one.stored}
    found = {name: one.rows(case.folder / name) for name, one in storing.items()}
    (_, first), *others = found.items()
    for name, rows in others:
        pd.testing.assert_frame_equal(rows, first, check_exact=True, obj=name)
    return len(first)


def _goals(name: str, result: Result) -> Iterator[Goal]:
    for figure, told in (("wall_seconds", ""), ("cpu_seconds", ", CPU time")):
        scripts, floors = (result.figures(to, figure) for to in (SCRIPT, FLOOR))
        allowed = [1.5 * script + floor for script, floor in zip(scripts, floors, strict=True)]
        shares = ratios(result.figures(name, figure), allowed)
        yield Goal(f"{name}, to 1.5 × script + empty asset{told}", shares, 1)
        if DLT in result.samples:
            yield Goal(f"{name}, to dlt{told}", result.ratio(name, DLT, figure), 1)
    yield Goal(f"{name}: peak memory", result.figures(name, "peak_megabytes"), 300, "MB")
    steps = result.figures(name, "step_seconds")
    own, whole = (result.figures(SCRIPT, figure) for figure in ("step_seconds", "wall_seconds"))
    yield Goal(f"{name}: its step, to the script after its imports", ratios(steps, own), 0.6)
    yield Goal(f"{name}: its step, to the whole script", ratios(steps, whole), 0.6)
