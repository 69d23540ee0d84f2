"""One process at a time, in UTC, always closed, and a clear word to those who wait too long."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path

import duckdb
import pytest

from crypto_assets.periods import wall_now
from crypto_assets.warehouse.errors import WarehouseError
from crypto_assets.warehouse.schema import Identity, ensure_schema
from crypto_assets.warehouse.session import open_warehouse, quoted
from crypto_assets.warehouse.warehouse import Warehouse
from crypto_assets.warehouse.writer import Batch
from crypto_assets_tests.warehouse import frames
from crypto_assets_tests.warehouse.conftest import Start

HOLD = """
with warehouse.session('a long backfill'):
    say('held')
    sys.stdin.readline()
"""


def test_a_quoted_name_can_not_end_its_quotes() -> None:
    assert quoted('x"; DROP TABLE t; --') == '"x""; DROP TABLE t; --"'


def test_who_waits_too_long_is_told_who_holds_the_file(warehouse: Warehouse, start: Start) -> None:
    child = start(HOLD)
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    began = time.monotonic()
    with pytest.raises(
        WarehouseError, match=rf"in use for 0 s by process {child.pid} \(a long backfill, since 20"
    ):
        replace(warehouse, lock_timeout_seconds=0.2).query("SELECT 1")
    assert time.monotonic() - began < 5


def test_who_waits_long_enough_gets_its_turn(warehouse: Warehouse, start: Start) -> None:
    child = start(HOLD)
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdout.readline()
    child.stdin.write("go\n")
    child.stdin.flush()
    assert warehouse.query("SELECT 42 AS answer")["answer"].tolist() == [42]


def test_the_lock_of_a_killed_process_is_free(warehouse: Warehouse, start: Start) -> None:
    child = start(HOLD)
    assert child.stdout is not None
    child.stdout.readline()
    child.kill()
    child.wait()
    began = time.monotonic()
    assert warehouse.query("SELECT 42 AS answer")["answer"].tolist() == [42]
    assert time.monotonic() - began < 5


def test_a_program_that_knows_no_lock_is_named_at_once(warehouse: Warehouse, start: Start) -> None:
    warehouse.query("SELECT 1")
    child = start(
        "import duckdb\nconnection = duckdb.connect(str(warehouse.path))\n"
        "say('held')\nsys.stdin.readline()\n"
    )
    assert child.stdout is not None
    child.stdout.readline()
    began = time.monotonic()
    with pytest.raises(WarehouseError, match=rf"PID {child.pid}"):
        warehouse.query("SELECT 1")
    assert time.monotonic() - began < 5


def test_an_exception_leaves_no_connection_open(warehouse: Warehouse) -> None:
    with pytest.raises(duckdb.CatalogException), warehouse.session("failing") as connection:
        connection.execute("SELECT * FROM nowhere")
    with pytest.raises(duckdb.ConnectionException, match="closed"):
        connection.execute("SELECT 1")
    # A second connect with other options fails while the first is open.
    duckdb.connect(str(warehouse.path), read_only=True).close()


def test_two_processes_that_write_at_once_both_land(warehouse: Warehouse, start: Start) -> None:
    code = """
coin = {coin!r}
say('ready')
sys.stdin.readline()
for day in (frames.D1, frames.D2, frames.D3):
    warehouse.write(Batch(frames.caps((day, coin, 2.0))), frames.to())
"""
    children = [start(code.format(coin=coin)) for coin in ("bitcoin", "ether")]
    for child in children:
        assert child.stdout is not None
        child.stdout.readline()
    errors = [child.communicate("go\n")[1] for child in children]
    assert errors == ["", ""]
    with warehouse.session("test") as connection:
        assert frames.prices(connection) == {
            (day, coin): 2.0
            for day in (frames.D1, frames.D2, frames.D3)
            for coin in ("bitcoin", "ether")
        }


def test_a_process_outside_utc_writes_and_reads_the_same_hours(
    warehouse: Warehouse, start: Start
) -> None:
    code = """
warehouse.write(
    Batch(frames.hours(frames.D1, [0, 23])), Write(tables.OHLC_HOURLY, 'run-1', (frames.D1,) * 2)
)
with warehouse.session('test') as connection:
    zone = connection.execute("SELECT current_setting('TimeZone')").fetchone()[0]
say(f"{zone} {warehouse.query('SELECT open_time FROM ohlc_hourly')['open_time'].max()}")
"""
    child = start(code, env={**os.environ, "TZ": "America/New_York"})
    out, err = child.communicate()
    assert (out, err) == ("UTC 2026-01-05 23:00:00\n", "")
    with warehouse.session("test") as connection:
        stored = connection.execute(
            "SELECT open_time FROM ohlc_hourly WHERE CAST(open_time AS DATE) = '2026-01-05' "
            "ORDER BY 1"
        ).fetchall()
        made = connection.execute("SELECT max(materialized_at) FROM ohlc_hourly").fetchone()
    at = datetime.fromisoformat
    assert stored == [(at("2026-01-05 00:00"),), (at("2026-01-05 23:00"),)]
    assert made is not None
    assert abs((made[0] - wall_now()).total_seconds()) < 300


def test_a_missing_folder_is_made(tmp_path: Path) -> None:
    path = tmp_path / "not" / "there" / "warehouse.duckdb"
    with open_warehouse(path, "test") as connection:
        assert connection.execute("SELECT 1").fetchall() == [(1,)]


def test_a_folder_that_can_not_be_made_is_named() -> None:
    path = Path("/proc/nowhere/warehouse.duckdb")
    with (
        pytest.raises(WarehouseError, match=r"can't lock /proc/nowhere/warehouse\.duckdb"),
        open_warehouse(path, "test"),
    ):
        pass


def test_a_home_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("mine")
    with (
        pytest.raises(WarehouseError, match="can't lock"),
        open_warehouse(tmp_path / "home" / "warehouse.duckdb", "test"),
    ):
        pass
    assert (tmp_path / "home").read_text() == "mine"


def test_a_file_that_is_no_database_is_refused_and_left_alone(warehouse: Warehouse) -> None:
    garbage = b"these are my notes, not a database\n" * 500
    warehouse.path.write_bytes(garbage)
    with pytest.raises(
        WarehouseError, match=r"can't open .*warehouse\.duckdb .*nothing was changed"
    ):
        warehouse.query("SELECT 1")
    assert warehouse.path.read_bytes() == garbage


def test_a_file_of_a_newer_duckdb_is_refused_and_left_alone(warehouse: Warehouse) -> None:
    warehouse.query("SELECT 1")
    data = bytearray(warehouse.path.read_bytes())
    # Main header: 8 bytes checksum, "DUCK", then the storage version as 64 bits.
    assert data[8:12] == b"DUCK"
    data[12:20] = (9_999).to_bytes(8, "little")
    warehouse.path.write_bytes(data)
    with pytest.raises(WarehouseError, match="newer DuckDB"):
        warehouse.query("SELECT 1")
    assert warehouse.path.read_bytes() == bytes(data)


def test_reading_does_not_touch_the_file(warehouse: Warehouse) -> None:
    warehouse.query("SELECT 1")
    before = warehouse.path.stat().st_mtime_ns, warehouse.path.read_bytes()
    assert warehouse.query("SELECT count(*) AS n FROM ranks")["n"].tolist() == [0]
    assert (warehouse.path.stat().st_mtime_ns, warehouse.path.read_bytes()) == before


def test_the_log_of_a_file_that_is_gone_is_not_replayed_into_a_new_one(
    warehouse: Warehouse, start: Start
) -> None:
    child = start("""
import duckdb, os, signal
connection = duckdb.connect(str(warehouse.path))
connection.execute("INSERT INTO gaps VALUES ('ranks', 'a', '2026-01-05', '2026-01-05', "
    "'missing', 'x', now())")
os.kill(os.getpid(), signal.SIGKILL)
""")
    child.wait()
    log = warehouse.path.with_name(f"{warehouse.path.name}.wal")
    assert log.stat().st_size > 0
    warehouse.path.unlink()
    assert warehouse.query("SELECT count(*) AS n FROM gaps")["n"].tolist() == [0]
    assert warehouse.query("SELECT count(*) AS n FROM market_caps")["n"].tolist() == [0]
    assert not log.exists()


def test_the_schema_is_looked_at_again_only_after_somebody_else_wrote(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = []

    def look(connection: duckdb.DuckDBPyConnection, identity: Identity) -> None:
        looked.append(identity)
        ensure_schema(connection, identity)

    monkeypatch.setattr("crypto_assets.warehouse.warehouse.ensure_schema", look)
    for _ in range(3):
        warehouse.write(Batch(frames.caps((date(2026, 1, 2), "bitcoin", 1.0))), frames.to())
    assert len(looked) == 1
    with open_warehouse(warehouse.path, "another program") as connection:
        connection.execute("CREATE TABLE of_another_program (n INTEGER)")
    warehouse.query("SELECT 1")
    warehouse.query("SELECT 1")
    assert len(looked) == 2


def test_a_file_that_was_moved_away_is_made_anew_with_all_its_tables(warehouse: Warehouse) -> None:
    with warehouse.session("moving"):
        warehouse.path.rename(warehouse.path.with_name("moved.duckdb"))
    assert len(warehouse.query("FROM market_caps")) == 0


def test_a_session_for_other_data_is_not_shared(warehouse: Warehouse) -> None:
    live = replace(warehouse.identity, is_sandbox=not warehouse.identity.is_sandbox)
    with (
        warehouse.session("outer"),
        pytest.raises(WarehouseError, match="in use"),
        replace(warehouse, identity=live, lock_timeout_seconds=0.1).session("inner"),
    ):
        pass


def test_a_session_in_a_session_is_the_same_and_another_threads_is_not(
    warehouse: Warehouse,
) -> None:
    ended: list[str] = []

    def other() -> None:
        warehouse.query("SELECT 1")
        ended.append("other")

    thread = threading.Thread(target=other)
    with warehouse.session("outer") as outer:
        outer.execute("CREATE TEMP TABLE mine AS SELECT 42 AS answer")
        assert warehouse.query("FROM mine")["answer"].tolist() == [42]
        thread.start()
        thread.join(0.3)
        ended.append("outer")
    thread.join(30)
    assert ended == ["outer", "other"]
