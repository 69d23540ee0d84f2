"""`python -m crypto_assets_tests.benchmarks [NAME…]`: measure, compare, tell."""

import json
import tempfile
from pathlib import Path

import click

from crypto_assets_tests.benchmarks import (
    cold,
    fetching,
    floor,
    loading,
    refresh,
    signals,
    ticks,
    writing,
)
from crypto_assets_tests.benchmarks.results import (
    Result,
    as_markdown,
    as_text,
    as_tree,
    commit,
    machine_line,
)
from crypto_assets_tests.benchmarks.suite import Benchmark, Setup

BENCHMARKS: dict[str, Benchmark] = {
    "cold": cold.cold,
    "limited": cold.limited,
    "refresh": refresh.refresh,
    "ema": signals.ema,
    "recalculation": signals.recalculation,
    "candles": fetching.candles,
    "ticks": ticks.all_ticks,
    "floor": floor.floor,
    "fetching-calls": fetching.calls,
    "fetching-rate": fetching.rate,
    "loading": loading.loading,
    "writing-insert": writing.insert,
    "writing-replace": writing.replace,
    "writing-replace-slices": writing.replace_in_slices,
    "publishing": writing.publish,
}


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--list", "is_listing", is_flag=True, help="Tell which benchmarks there are.")
@click.option("--repeats", default=5, show_default=True, type=click.IntRange(1))
@click.option("--quick", is_flag=True, help="Small sizes, one round: tells only that it runs.")
@click.option("--json", "target", type=click.Path(path_type=Path), help="Write all figures there.")
@click.option("--markdown", is_flag=True, help="Print the table of the README.")
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Where files are made; a temporary one."
)
def main(
    names: tuple[str, ...],
    is_listing: bool,
    repeats: int,
    quick: bool,
    target: Path | None,
    markdown: bool,
    folder: Path | None,
) -> None:
    """Measure ours and its rivals in turn; all benchmarks, or those named.

    Figures are medians with the smallest and the largest of the rounds. None is asserted: what has
    to hold on every machine is in the tests.
    """
    if is_listing:
        for name, benchmark in BENCHMARKS.items():
            click.echo(f"{name}: {(benchmark.__doc__ or '').splitlines()[0]}")
        return
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        raise click.UsageError(f"no benchmark {', '.join(unknown)}: --list tells which there are")
    rounds = 1 if quick else repeats
    click.echo(f"{commit()} on {machine_line()}; rounds: {rounds}")
    results: dict[str, Result] = {}
    for name in names or BENCHMARKS:
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            results[name] = BENCHMARKS[name](Setup(Path(scratch), rounds, quick))
        click.echo("\n".join(as_text(name, results[name])))
        if target:
            # After each, so that a long run that is interrupted keeps what it found.
            target.write_text(json.dumps(as_tree(results, rounds), indent=1))
    if markdown:
        click.echo("\n".join(as_markdown(results)))


if __name__ == "__main__":
    main()
