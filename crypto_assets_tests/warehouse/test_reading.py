"""What a notebook gets: a read-only connection to the newest publication, or a clear word."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

import crypto_assets
from crypto_assets.warehouse.errors import WarehouseError
from crypto_assets.warehouse.publishing import LINK_NAME, publish_run
from crypto_assets.warehouse.reading import connect
from crypto_assets.warehouse.warehouse import Warehouse
from crypto_assets.warehouse.writer import Batch
from crypto_assets_tests.warehouse import frames
from crypto_assets_tests.warehouse.conftest import Start
from crypto_assets_tests.warehouse.frames import D1, caps


@pytest.fixture
def published(warehouse: Warehouse, home: Path) -> Path:
    warehouse.write(Batch(caps((D1, "bitcoin", 1.0))), frames.to())
    publish_run(home, "run-1")
    return home


def test_the_package_itself_connects(published: Path) -> None:
    with crypto_assets.connect(str(published)) as connection:
        assert connection.execute("FROM market_caps SELECT price_usd").fetchall() == [(1.0,)]


def test_the_settings_in_force_name_the_home(
    published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRYPTO_ASSETS_HOME", str(published))
    with connect() as connection:
        assert connection.execute("FROM market_caps SELECT price_usd").fetchall() == [(1.0,)]


def test_nothing_published_is_an_error_and_no_empty_answer(home: Path) -> None:
    with pytest.raises(WarehouseError, match=r"nothing has been published in .*home yet: run"):
        connect(home)
    assert not home.exists()


def test_a_warehouse_that_was_never_published_is_not_read(warehouse: Warehouse, home: Path) -> None:
    assert warehouse.path.exists()
    with pytest.raises(WarehouseError, match="nothing has been published"):
        connect(home)


def test_a_damaged_publication_is_named(published: Path) -> None:
    (published / LINK_NAME).resolve().write_bytes(b"garbage" * 10_000)
    with pytest.raises(WarehouseError, match=r"can't read .*crypto-000001\.duckdb"):
        connect(published)


def test_readers_can_not_write(published: Path) -> None:
    with (
        connect(published) as connection,
        pytest.raises(duckdb.InvalidInputException, match="read-only"),
    ):
        connection.execute("DELETE FROM market_caps")


def test_readers_are_in_utc(published: Path) -> None:
    with connect(published) as connection:
        assert connection.execute("SELECT current_setting('TimeZone')").fetchone() == ("UTC",)


def test_a_reader_neither_waits_for_the_pipeline_nor_blocks_it(
    published: Path, warehouse: Warehouse
) -> None:
    with warehouse.session("writing") as writer, connect(published) as reader:
        writer.execute("DELETE FROM market_caps")
        assert frames.prices(reader) == {(D1, "bitcoin"): 1.0}
        assert frames.prices(writer) == {}


def test_a_reader_that_stays_open_stops_no_writer(
    published: Path, warehouse: Warehouse, start: Start
) -> None:
    child = start(
        "from crypto_assets.warehouse.reading import connect\n"
        "connection = connect(home)\nsay('open')\nsys.stdin.readline()\n"
        "say(frames.prices(connection)[frames.D1, 'bitcoin'])\n"
    )
    assert child.stdout is not None
    child.stdout.readline()
    for price in (2.0, 3.0, 4.0, 5.0):
        warehouse.write(Batch(caps((D1, "bitcoin", price))), frames.to())
        publish_run(published, "run")
    out, err = child.communicate("go\n")
    assert (out, err) == ("1.0\n", "")
