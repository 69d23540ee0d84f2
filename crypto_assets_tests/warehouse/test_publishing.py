"""Write, audit, publish: readers see whole versions, and only those the gates let through."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from crypto_assets import tables
from crypto_assets.periods import wall_now
from crypto_assets.warehouse import publishing
from crypto_assets.warehouse.audit import AuditFailure, audit
from crypto_assets.warehouse.errors import WarehouseError
from crypto_assets.warehouse.publishing import (
    LINK_NAME,
    Debounce,
    Publication,
    is_behind,
    publish_run,
    read_state,
)
from crypto_assets.warehouse.reading import connect
from crypto_assets.warehouse.warehouse import Warehouse
from crypto_assets.warehouse.writer import Batch
from crypto_assets_tests.warehouse import frames
from crypto_assets_tests.warehouse.conftest import Start
from crypto_assets_tests.warehouse.frames import D1, D3, caps

Put = Callable[[float], None]
Versions = list[str]


@pytest.fixture
def put(warehouse: Warehouse) -> Put:
    """Stores one price of bitcoin; what readers see tells which write they see."""

    def store(price: float) -> None:
        warehouse.write(Batch(caps((D1, "bitcoin", price))), frames.to())

    return store


def seen(home: Path) -> float:
    with connect(home) as connection:
        return next(iter(frames.prices(connection).values()))


def versions(home: Path) -> Versions:
    return sorted(path.name for path in (home / "published").iterdir())


def spoil(warehouse: Warehouse, day: date, source: str = "coingecko/coins/markets") -> None:
    """Make a day's rows say that they came from a live provider, in a sandbox home."""
    with warehouse.session("spoiling") as connection:
        connection.execute(
            "UPDATE market_caps SET source = ?, materialized_at = ? WHERE date = ?",
            [source, wall_now(), day],
        )


def doubly_ranked(day: date, made_at: datetime) -> pd.DataFrame:
    """Two coins that are both the largest."""
    return pd.DataFrame(
        {
            "date": pd.Timestamp(day),
            "coin_id": ["bitcoin", "ether"],
            "market_cap_rank": 1,
            "market_cap_usd": 5.0,
            "market_share": 0.5,
            "is_point_in_time": True,
            "is_final": True,
            "observed_at": pd.Timestamp(frames.SEEN),
            "source": "sandbox/calculated",
            "materialized_at": pd.Timestamp(made_at),
        }
    )


def test_a_publication_is_a_copy_behind_a_symlink(home: Path, put: Put) -> None:
    put(1.0)
    state = publish_run(home, "run-1")
    assert (state.version, state.run_id, state.withheld_by) == (1, "run-1", ())
    assert read_state(home) == state
    assert (home / LINK_NAME).readlink() == Path("published/crypto-000001.duckdb")
    assert versions(home) == ["crypto-000001.duckdb"]
    put(2.0)
    assert seen(home) == 1.0
    assert publish_run(home, "run-2").version == 2
    assert seen(home) == 2.0


def test_nothing_new_is_not_published_again(home: Path, put: Put) -> None:
    put(1.0)
    before = publish_run(home, "run-1")
    assert not is_behind(home)
    assert publish_run(home, "run-2") == before
    put(2.0)
    assert is_behind(home)


def test_a_home_without_warehouse_has_nothing_to_publish(home: Path) -> None:
    home.mkdir()
    assert not is_behind(home)
    assert read_state(home) == Publication()


def test_a_home_can_be_moved(home: Path, put: Put, tmp_path: Path) -> None:
    put(1.0)
    publish_run(home, "run-1")
    home.rename(tmp_path / "moved")
    assert seen(tmp_path / "moved") == 1.0


def test_an_old_version_is_read_on_while_new_ones_come(home: Path, put: Put) -> None:
    put(1.0)
    publish_run(home, "run-1")
    with connect(home) as reader:
        for number in range(2, 7):
            put(float(number))
            publish_run(home, f"run-{number}")
            assert frames.prices(reader) == {(D1, "bitcoin"): 1.0}
            assert seen(home) == number


def test_the_last_two_versions_stay(home: Path, put: Put) -> None:
    for number in range(1, 6):
        put(float(number))
        publish_run(home, f"run-{number}")
    assert versions(home) == [f"crypto-00000{number}.duckdb" for number in (4, 5)]


@pytest.mark.slow
def test_a_reader_in_another_process_sees_one_version_or_the_next(
    home: Path, put: Put, start: Start
) -> None:
    put(1.0)
    publish_run(home, "run-1")
    child = start("""
import threading
from crypto_assets.warehouse.reading import connect
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), stop.set())).start()
found = []
say('reading')
while not stop.is_set():
    with connect(home) as connection:
        rows = connection.execute('SELECT price_usd FROM market_caps').fetchall()
    assert len(rows) == 1, rows
    found.append(rows[0][0])
assert found == sorted(found), found
say(len(found))
""")
    assert child.stdout is not None
    child.stdout.readline()
    for number in range(2, 12):
        put(float(number))
        publish_run(home, f"run-{number}")
    out, err = child.communicate("stop\n")
    assert err == ""
    assert int(out) >= 5


# Gates.


def test_a_broken_rule_withholds_until_it_holds_again(
    home: Path, put: Put, warehouse: Warehouse
) -> None:
    put(1.0)
    publish_run(home, "run-1")
    put(2.0)
    spoil(warehouse, D1)
    withheld = publish_run(home, "run-2")
    assert withheld.version == 1
    assert withheld.withheld_by == (AuditFailure("market_caps", "source_fits_home", D1, D1, 1),)
    assert withheld.withheld_since is not None
    warehouse.write(Batch(caps((D3, "bitcoin", 3.0))), frames.to())
    # A run of other days heals nothing, and does not forget.
    again = publish_run(home, "run-3")
    assert again.withheld_since == withheld.withheld_since
    assert [(f.first, f.last, f.offending_rows) for f in again.withheld_by] == [(D1, D3, 1)]
    assert read_state(home) == again
    assert seen(home) == 1.0
    spoil(warehouse, D1, "sandbox/healed")
    healed = publish_run(home, "run-4")
    assert (healed.version, healed.withheld_by, healed.withheld_since) == (2, (), None)
    with connect(home) as connection:
        assert frames.prices(connection) == {(D1, "bitcoin"): 2.0, (D3, "bitcoin"): 3.0}


def test_days_not_touched_since_the_last_publication_are_not_audited_again(
    home: Path, put: Put, warehouse: Warehouse
) -> None:
    put(1.0)
    publish_run(home, "run-1")
    with warehouse.session("long ago") as connection:
        connection.execute("UPDATE market_caps SET source = 'live', materialized_at = '2020-01-01'")
    assert publish_run(home, "run-2").withheld_by == ()
    with warehouse.session("auditing") as connection:
        assert [failure.check for failure in audit(connection, None)] == ["source_fits_home"]


def test_a_calculated_day_stamped_before_the_last_publication_is_audited_once_it_is_written(
    home: Path, put: Put, warehouse: Warehouse
) -> None:
    """Its step began, another run published, and only then it wrote."""
    put(1.0)
    began = wall_now()
    publish_run(home, "run-1")
    warehouse.write(Batch(doubly_ranked(D1, began)), frames.to(tables.RANKS, D1, D1))
    assert {f.check for f in publish_run(home, "run-2").withheld_by} >= {"ranks_are_1_to_n"}


def test_days_that_were_published_as_they_are_are_not_audited_again(
    home: Path, put: Put, warehouse: Warehouse
) -> None:
    put(1.0)
    later = [D1 + timedelta(days=n) for n in range(1, 8)]
    warehouse.write(Batch(caps(*((day, "bitcoin", 1.0) for day in later))), frames.to())
    publish_run(home, "run-1")
    published_at = read_state(home).published_at
    with warehouse.session("auditing") as connection:
        connection.execute("UPDATE market_caps SET source = 'live' WHERE date = ?", [D1])
        assert audit(connection, published_at, home / LINK_NAME) == []
        (found,) = audit(connection, published_at)
        assert (found.check, found.offending_rows) == ("source_fits_home", 1)


def snapshot(day: date, close_usd: float, made_at: datetime) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "date": [pd.Timestamp(day)],
            "coin_id": "bitcoin",
            "close_usd": close_usd,
            "is_point_in_time": True,
            "is_final": True,
            "observed_at": pd.Timestamp(frames.SEEN),
            "source": "sandbox/calculated",
            "materialized_at": pd.Timestamp(made_at),
        }
    )


def test_an_old_day_that_is_calculated_again_is_audited_though_its_rows_are_the_same(
    home: Path, warehouse: Warehouse
) -> None:
    """Stale rows are spared; who writes the wrong ones once more, stamped later, is not."""
    days = [D1, *(D1 + timedelta(days=n) for n in range(10, 20))]
    to_snapshots = frames.to(tables.DAILY_SNAPSHOT, D1, days[-1])
    warehouse.write(Batch(caps(*((day, "bitcoin", 1.0) for day in days))), frames.to())
    made = pd.concat([snapshot(day, 1.0, wall_now()) for day in days])
    warehouse.write(Batch(made), to_snapshots)
    changed = caps((D1, "bitcoin", 2.0), observed_at=pd.Timestamp(frames.LATER))
    warehouse.write(Batch(changed), frames.to())
    began = wall_now()
    assert publish_run(home, "run-1").withheld_by == ()
    again = snapshot(D1, 1.0, began)
    warehouse.write(Batch(again), frames.to(tables.DAILY_SNAPSHOT, D1, D1))
    assert [f.check for f in publish_run(home, "run-2").withheld_by] == ["snapshot_follows_closes"]


def test_a_day_that_lost_rows_is_audited_with_all_that_was_made_of_it(
    home: Path, warehouse: Warehouse
) -> None:
    days = [D1, *(D1 + timedelta(days=n) for n in range(10, 20))]
    before = pd.Timestamp(wall_now() - timedelta(days=3))
    closes = caps(*((day, "bitcoin", 1.0) for day in days), materialized_at=before)
    warehouse.write(Batch(closes), frames.to())
    made = pd.concat([snapshot(day, 1.0, wall_now()) for day in days])
    warehouse.write(Batch(made), frames.to(tables.DAILY_SNAPSHOT, D1, days[-1]))
    assert publish_run(home, "run-1").withheld_by == ()
    nothing = caps((D1, "ether", 1.0), observed_at=pd.Timestamp(frames.LATER))
    gone = pd.DataFrame({"date": [pd.Timestamp(D1)]})
    stamped = nothing.assign(materialized_at=before)
    warehouse.write(Batch(stamped, whole=gone), frames.to())
    assert "snapshot_follows_closes" in [f.check for f in publish_run(home, "run-2").withheld_by]


def test_a_table_without_days_is_audited_though_no_day_was_touched(
    home: Path, warehouse: Warehouse
) -> None:
    before = pd.Timestamp(wall_now() - timedelta(days=3))
    warehouse.write(Batch(caps((D1, "bitcoin", 1.0), materialized_at=before)), frames.to())
    assert publish_run(home, "run-1").withheld_by == ()
    seen = pd.Timestamp(frames.SEEN)
    listed = pd.DataFrame(
        {
            "coin_id": ["bitcoin"],
            "symbol": "btc",
            "name": "Bitcoin",
            "is_active": True,
            "first_seen_at": seen,
            "last_seen_at": seen,
            "source": "coingecko/coins/list",
            "raw_id": "r",
        }
    )
    warehouse.write(Batch(listed), frames.to(tables.COIN_LIST))
    assert [f.check for f in publish_run(home, "run-2").withheld_by] == ["source_fits_home"]


def test_a_change_from_outside_to_one_of_the_newest_days_is_noticed(
    home: Path, put: Put, warehouse: Warehouse
) -> None:
    put(1.0)
    later = [D1 + timedelta(days=n) for n in range(1, 7)]
    warehouse.write(Batch(caps(*((day, "bitcoin", 1.0) for day in later))), frames.to())
    publish_run(home, "run-1")
    with warehouse.session("tampering") as connection:
        connection.execute("UPDATE market_caps SET source = 'live' WHERE date = ?", [D1])
    (found,) = publish_run(home, "run-2").withheld_by
    assert (found.check, found.offending_rows) == ("source_fits_home", 1)


def test_a_published_file_that_tells_nothing_spares_no_audit(
    home: Path, put: Put, warehouse: Warehouse, tmp_path: Path
) -> None:
    put(1.0)
    publish_run(home, "run-1")
    published_at = read_state(home).published_at
    (tmp_path / "damaged.duckdb").write_bytes(b"no database")
    with duckdb.connect(str(tmp_path / "empty.duckdb")) as empty:
        empty.execute("CREATE TABLE other (i INTEGER)")
    with warehouse.session("auditing") as connection:
        connection.execute("UPDATE market_caps SET source = 'live'")
        for name in ("damaged.duckdb", "empty.duckdb", "absent.duckdb"):
            found = audit(connection, published_at, tmp_path / name)
            assert [failure.check for failure in found] == ["source_fits_home"], name
        attached = connection.execute("SELECT database_name FROM duckdb_databases()").fetchall()
        assert ("published",) not in attached


OFTEN = Debounce(large_megabytes=0, minutes_between=60)


def test_a_broken_rule_is_told_also_where_a_publication_is_put_off(
    home: Path, put: Put, warehouse: Warehouse
) -> None:
    put(1.0)
    publish_run(home, "run-1", OFTEN)
    put(2.0)
    spoil(warehouse, D1)
    publish_run(home, "run-2", OFTEN)
    told = read_state(home)
    assert told.withheld_by == (AuditFailure("market_caps", "source_fits_home", D1, D1, 1),)
    assert told.withheld_since is not None
    assert (told.version, told.run_id, seen(home)) == (1, "run-1", 1.0)
    spoil(warehouse, D1, "sandbox/healed")
    publish_run(home, "run-3", OFTEN)
    told = read_state(home)
    # What was put off is still to come.
    assert (told.version, told.withheld_since, told.withheld_by) == (1, None, ())
    assert is_behind(home)
    assert seen(home) == 1.0


# Crashes and disks.


KILLED = """
import os
import signal
connection = __import__('duckdb').connect(str(warehouse.path))
connection.execute("UPDATE market_caps SET price_usd = 7.0")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_had_committed_is_published(
    home: Path, put: Put, start: Start
) -> None:
    put(1.0)
    publish_run(home, "run-1")
    start(KILLED).wait()
    assert (home / "warehouse.duckdb.wal").stat().st_size > 0
    assert is_behind(home)
    publish_run(home, "run-2")
    assert seen(home) == 7.0


def test_the_first_publication_after_a_kill_holds_its_log(
    home: Path, put: Put, start: Start
) -> None:
    put(1.0)
    start(KILLED).wait()
    assert (home / "warehouse.duckdb.wal").stat().st_size > 0
    publish_run(home, "run-1")
    assert seen(home) == 7.0


def stays_at_one(home: Path) -> None:
    """Publishing fails with a clear word, and readers keep what they had."""
    with pytest.raises(WarehouseError, match=r"can't publish.*readers keep the last publication"):
        publish_run(home, "run-2")
    assert seen(home) == 1.0
    assert (read_state(home).version, read_state(home).run_id) == (1, "run-1")


TOO_LARGE = """
import resource, signal
from crypto_assets.warehouse.publishing import publish_run
size = (home / FILE_NAME).stat().st_size
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, size - 1))
try:
    publish_run(home, "run-2")
except Exception as error:
    say(type(error).__name__ + ": " + str(error))
"""


def test_a_full_disk_leaves_the_last_publication(home: Path, put: Put, start: Start) -> None:
    put(1.0)
    publish_run(home, "run-1")
    put(2.0)
    out, _ = start(TOO_LARGE).communicate(timeout=60)
    assert out.startswith("WarehouseError: can't publish to ")
    assert "readers keep the last publication" in out
    assert seen(home) == 1.0
    assert (read_state(home).version, read_state(home).run_id) == (1, "run-1")
    assert versions(home) == ["crypto-000001.duckdb"]
    assert publish_run(home, "run-3").version == 2
    assert seen(home) == 2.0


def test_a_folder_in_the_way_of_the_link_leaves_the_last_publication(home: Path, put: Put) -> None:
    put(1.0)
    publish_run(home, "run-1")
    put(2.0)
    (home / "crypto.duckdb.new").mkdir()
    stays_at_one(home)


def test_a_folder_in_the_way_of_the_copy_leaves_the_last_publication(home: Path, put: Put) -> None:
    put(1.0)
    publish_run(home, "run-1")
    put(2.0)
    (home / "published" / "crypto-000002.unfinished").mkdir()
    stays_at_one(home)


def test_a_file_in_place_of_the_folder_is_a_clear_error(home: Path, put: Put) -> None:
    put(1.0)
    (home / "published").write_text("mine")
    with pytest.raises(WarehouseError, match="can't publish"):
        publish_run(home, "run-1")
    assert (home / "published").read_text() == "mine"


def test_a_warehouse_that_is_no_database_is_not_published_over_a_good_one(
    home: Path, put: Put
) -> None:
    put(1.0)
    publish_run(home, "run-1")
    (home / "warehouse.duckdb").write_bytes(b"garbage" * 10_000)
    with pytest.raises(WarehouseError):
        publish_run(home, "run-2")
    assert seen(home) == 1.0


def test_a_file_system_without_shared_blocks_gets_a_plain_copy(
    home: Path, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: int) -> int:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(publishing.os, "copy_file_range", unsupported)
    put(1.0)
    publish_run(home, "run-1")
    copy, source = home / LINK_NAME, home / "warehouse.duckdb"
    assert (
        hashlib.sha256(copy.read_bytes()).digest() == hashlib.sha256(source.read_bytes()).digest()
    )


def test_a_kill_before_the_state_is_written_does_not_reuse_a_name(
    home: Path, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(1.0)
    publish_run(home, "run-1")
    put(2.0)
    with monkeypatch.context() as patched:
        patched.setattr(publishing, "_write_state", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            publish_run(home, "run-2")
    with connect(home) as reader:
        assert frames.prices(reader) == {(D1, "bitcoin"): 2.0}
        put(3.0)
        publish_run(home, "run-3")
        # A name used twice would hand the open connection's version to this one.
        assert seen(home) == 3.0
        assert frames.prices(reader) == {(D1, "bitcoin"): 2.0}


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_lost_state_does_not_lose_the_publication(home: Path, put: Put) -> None:
    for number in range(1, 6):
        put(float(number))
        publish_run(home, f"run-{number}")
    (home / "publication.json").unlink()
    put(6.0)
    publish_run(home, "run-6")
    assert seen(home) == 6.0


def test_a_state_that_can_not_be_read_is_a_clear_error(home: Path, put: Put) -> None:
    put(1.0)
    publish_run(home, "run-1")
    (home / "publication.json").write_text("")
    put(2.0)
    with pytest.raises(WarehouseError, match=r"publication\.json"):
        publish_run(home, "run-2")
    assert seen(home) == 1.0


@pytest.mark.parametrize("text", ["{}", "[]", "null", "1", '"x"', "unknown"])
def test_a_state_that_is_none_says_what_to_do(home: Path, put: Put, text: str) -> None:
    put(1.0)
    publish_run(home, "run-1")
    state = home / "publication.json"
    if text == "unknown":
        text = json.dumps({**json.loads(state.read_text()), "unknown": 1})
    state.write_text(text)
    put(2.0)
    for use in (read_state, is_behind, lambda home: publish_run(home, "run-2")):
        with pytest.raises(WarehouseError, match=r"publication\.json: delete it, the next run"):
            use(home)
    state.unlink()
    publish_run(home, "run-3")
    assert seen(home) == 2.0


def test_a_copy_left_by_a_kill_that_can_not_be_written_is_replaced(home: Path, put: Put) -> None:
    put(1.0)
    publish_run(home, "run-1")
    put(2.0)
    left = home / "published" / "crypto-000002.unfinished"
    left.write_bytes(b"half a copy")
    left.chmod(0o444)
    assert publish_run(home, "run-2").version == 2
    assert seen(home) == 2.0
    assert versions(home) == ["crypto-000001.duckdb", "crypto-000002.duckdb"]


def test_the_state_says_in_plain_json_what_withholds(
    home: Path, put: Put, warehouse: Warehouse
) -> None:
    put(1.0)
    spoil(warehouse, D1)
    publish_run(home, "run-1")
    told = json.loads((home / "publication.json").read_text())
    assert told["version"] == 0
    assert told["withheld_by"] == [
        {
            "table": "market_caps",
            "check": "source_fits_home",
            "first": "2026-01-05",
            "last": "2026-01-05",
            "offending_rows": 1,
        }
    ]
    assert not (home / LINK_NAME).exists()


def test_a_published_file_holds_everything_by_itself(home: Path, put: Put) -> None:
    put(1.0)
    publish_run(home, "run-1")
    with duckdb.connect(str((home / LINK_NAME).resolve()), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM duckdb_tables()").fetchone() == (14,)
