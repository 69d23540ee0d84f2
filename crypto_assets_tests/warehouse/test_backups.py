"""What is backed up comes back equal; what is damaged does not come back at all."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import duckdb
import fsspec
import pandas as pd
import pytest

from crypto_assets import tables
from crypto_assets.periods import wall_now
from crypto_assets.warehouse import backups, migrations
from crypto_assets.warehouse.backups import Format, Place, backup, list_backups, prune, restore
from crypto_assets.warehouse.comparing import compare
from crypto_assets.warehouse.errors import WarehouseError
from crypto_assets.warehouse.gaps import Gap, Inspection
from crypto_assets.warehouse.manifests import sealed
from crypto_assets.warehouse.publishing import publish_run
from crypto_assets.warehouse.verifying import verify
from crypto_assets.warehouse.warehouse import FILE_NAME, Warehouse
from crypto_assets.warehouse.writer import Batch
from crypto_assets_tests.warehouse import frames
from crypto_assets_tests.warehouse.conftest import Start
from crypto_assets_tests.warehouse.frames import (
    D1,
    D2,
    D3,
    IDENTITY,
    LATER,
    SEEN,
    candles,
    caps,
    hours,
    to,
)
from crypto_assets_tests.warehouse.test_migrations import to_version_1

FORMATS: tuple[Format, ...] = get_args(Format)
ODD = [
    "",
    " ",
    "NULL",
    "null",
    "=cmd()|' /C calc'!A0",
    'say "hi"',
    '"',
    "a,b;c\td",
    "two\nlines",
    "two\r\nlines",
    "\\",
    "\\n",
    "💰 ñ ﷽ \u202eniocltib\u202c",
    "-1",
    "007",
    "1e5",
    "true",
    "2026-01-01",
    "'; DROP TABLE coin_list; --",
    "y" * 10_000,
]
NUMBERS = [0.1 + 0.2, 1e-300, 1.7976931348623157e308, 1 / 3, 123456789.12345679]


def listing(*symbols: str) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "coin_id": [f"coin-{n:02}" for n in range(len(symbols))],
            "symbol": list(symbols),
            "name": list(symbols)[::-1],
            "platforms": ["" if n % 2 else None for n in range(len(symbols))],
            "is_active": True,
            "first_seen_at": pd.Timestamp("2026-01-05 00:00:00.000001"),
            "last_seen_at": pd.Timestamp(SEEN),
            "renamed_to": [None if n % 2 else "" for n in range(len(symbols))],
            "source": "sandbox/test",
        }
    )


def fill(warehouse: Warehouse) -> None:
    """Rows of every kind: odd texts, odd numbers, NULLs, gaps, restatements."""
    warehouse.write(Batch(listing(*ODD)), to(tables.COIN_LIST))
    gaps = Inspection({ODD[4]: [D1, D2], "b": [D2]}, [Gap(ODD[4], D1, "missing", 'say "no",\nno')])
    prices = [(D1, f"n{n}", number) for n, number in enumerate(NUMBERS)]
    rows = caps(*prices, (D2, "b", 2.0), market_cap_usd=None, raw_id="")
    warehouse.write(Batch(rows, gaps), to())
    warehouse.write(Batch(caps((D2, "b", 3.0), observed_at=LATER)), to())
    warehouse.write(Batch(candles((D1, "a", 4.0), volume_usd=0.0)), frames.to_candles())
    warehouse.write(Batch(hours(D1, range(24))), to(tables.OHLC_HOURLY))


@pytest.fixture
def filled(warehouse: Warehouse) -> Warehouse:
    """A published warehouse with rows."""
    fill(warehouse)
    publish_run(warehouse.home, "run-1")
    return warehouse


def dump(path: Path) -> dict[str, Any]:
    """All rows of all tables of a file, as Python has them."""
    with duckdb.connect(str(path), read_only=True) as connection:
        names = connection.execute("SELECT table_name FROM duckdb_tables() ORDER BY 1").fetchall()
        return {
            name: sorted(connection.execute(f"FROM {name}").fetchall(), key=str)
            for (name,) in names
        }


def differences(a: Path, b: Path) -> list[str]:
    with duckdb.connect() as connection:
        for name, path in (("a", a), ("b", b)):
            connection.execute(f"ATTACH '{path}' AS {name} (READ_ONLY)")
        return [found.table for found in compare(connection) if not found.is_equal]


def left_in(folder: Path) -> list[str]:
    """Names of what is in a folder, but for the queue in which writers wait."""
    found = folder.rglob("*") if folder.exists() else []
    return sorted(path.name for path in found if ".queue" not in str(path.relative_to(folder)))


# There and back.


@pytest.mark.parametrize("form", FORMATS)
def test_a_restored_warehouse_holds_every_row_of_every_table(
    filled: Warehouse, tmp_path: Path, form: Format
) -> None:
    place, _ = backup(filled.home, tmp_path / "backups", form)
    target = tmp_path / "new" / FILE_NAME
    restore(str(place), target)
    assert differences(filled.path, target) == []
    before, after = dump(filled.path), dump(target)
    assert after == before
    assert {len(before[name]) > 0 for name in ("gaps", "restatements", "partitions")} == {True}
    assert left_in(target.parent) == [FILE_NAME]
    assert {row[1] for row in after["coin_list"]} == set(ODD)


@pytest.mark.parametrize("form", FORMATS)
def test_a_restored_warehouse_verifies_and_takes_new_rows(
    filled: Warehouse, tmp_path: Path, form: Format
) -> None:
    place, _ = backup(filled.home, tmp_path / "backups", form)
    restored = Warehouse(tmp_path / "new" / FILE_NAME, IDENTITY, 20)
    restore(str(place), restored.path)
    with restored.session("test") as connection:
        assert [verdict.told for verdict in verify(connection) if not verdict.is_fine] == []
    restored.write(Batch(caps((D3, "z", 1.0))), to())
    assert len(restored.query("FROM market_caps")) == len(NUMBERS) + 2
    publish_run(restored.home, "restore")


@pytest.mark.parametrize("text", ["\\N", '"\\N"'])
def test_a_csv_tells_any_text_from_a_missing_one(
    warehouse: Warehouse, tmp_path: Path, text: str
) -> None:
    warehouse.write(Batch(listing(text, "x").assign(platforms=text)), to(tables.COIN_LIST))
    publish_run(warehouse.home, "run-1")
    place, _ = backup(warehouse.home, tmp_path / "backups", "csv")
    restore(str(place), tmp_path / "new" / FILE_NAME)
    assert dump(tmp_path / "new" / FILE_NAME)["coin_list"] == dump(warehouse.path)["coin_list"]


@pytest.mark.parametrize("form", FORMATS)
def test_a_warehouse_without_rows_comes_back(
    warehouse: Warehouse, tmp_path: Path, form: Format
) -> None:
    publish_run(warehouse.home, "run-1")
    place, manifest = backup(warehouse.home, tmp_path / "backups", form)
    restore(str(place), tmp_path / "new" / FILE_NAME)
    assert dump(tmp_path / "new" / FILE_NAME) == dump(warehouse.path)
    assert manifest.tables["market_caps"].rows == 0


def test_the_manifest_tells_rows_and_checksums(filled: Warehouse, tmp_path: Path) -> None:
    began = wall_now().replace(microsecond=0)
    place, _ = backup(filled.home, tmp_path / "backups")
    folder = Path(str(place))
    told = json.loads((folder / "manifest.json").read_text())
    rows = {name: len(rows) for name, rows in dump(filled.path).items()}
    assert {name: table["rows"] for name, table in told["tables"].items()} == rows
    for table in told["tables"].values():
        content = (folder / table["file"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == table["sha256"]
    assert {path.name for path in folder.iterdir()} == {
        "manifest.json",
        *(table["file"] for table in told["tables"].values()),
    }
    assert told["schema_version"] == migrations.newest()
    assert (told["is_sandbox"], told["history_start"]) == (True, "2026-01-01")
    assert told["version"] == 1
    assert began <= datetime.fromisoformat(told["made_at"]) <= wall_now()
    made_at = datetime.fromisoformat(told["made_at"])
    assert folder.name == f"crypto_assets-{told['warehouse_id']}-{made_at:%Y%m%dT%H%M%SZ}"


def test_a_backup_is_of_the_publication(filled: Warehouse, tmp_path: Path) -> None:
    filled.write(Batch(caps((D3, "later", 1.0))), to())
    place, _ = backup(filled.home, tmp_path / "backups")
    restore(str(place), tmp_path / "new" / FILE_NAME)
    assert len(dump(tmp_path / "new" / FILE_NAME)["market_caps"]) == len(NUMBERS) + 1


def test_a_backup_waits_for_no_run(filled: Warehouse, tmp_path: Path, start: Start) -> None:
    child = start("with warehouse.session('busy'):\n    say('held')\n    sys.stdin.readline()\n")
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    place, _ = backup(filled.home, tmp_path / "backups")
    assert child.poll() is None
    assert list_backups(tmp_path / "backups") == [place]


def test_a_home_without_a_publication_has_nothing_to_back_up(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    with pytest.raises(WarehouseError, match="nothing has been published"):
        backup(warehouse.home, tmp_path / "backups")
    assert left_in(tmp_path / "backups") == []


def test_a_backup_goes_to_any_file_system(filled: Warehouse, tmp_path: Path) -> None:
    url = f"memory://{tmp_path.name}/backups"
    made = [backup_at(filled.home, url, second) for second in range(3)]
    assert [str(place) for place in list_backups(url)] == [str(place) for place in made]
    assert str(made[0]).startswith("memory://")
    restore(str(made[-1]), tmp_path / "new" / FILE_NAME)
    assert dump(tmp_path / "new" / FILE_NAME) == dump(filled.path)
    assert [str(place) for place in prune(url, 1, id_of(made[0]))] == [
        str(place) for place in made[:2]
    ]
    assert [str(place) for place in list_backups(url)] == [str(made[2])]
    left = fsspec.filesystem("memory").find(f"/{tmp_path.name}")
    assert {Path(name).parent.name for name in left} == {Path(str(made[2])).name}


def backup_at(home: Path, target: str | Path, second: int) -> Place:
    """Make a backup as if it were this second of a day."""
    with pytest.MonkeyPatch.context() as patch:
        at = datetime(2026, 3, 1) + timedelta(seconds=second)
        patch.setattr(backups, "wall_now", lambda: at)
        return backup(home, target)[0]


@pytest.mark.parametrize("url", ["nowhere://x", "http+odd://x/y"])
def test_a_file_system_nobody_knows_is_one_sentence(filled: Warehouse, url: str) -> None:
    with pytest.raises(WarehouseError, match=f"can't use {re.escape(url)} ") as refused:
        backup(filled.home, url)
    assert "\n" not in str(refused.value)


# Damaged ones.


@pytest.fixture
def kept(filled: Warehouse, tmp_path: Path) -> Path:
    """The folder of a backup."""
    return Path(str(backup_at(filled.home, tmp_path / "backups", 0)))


def edited(folder: Path, **changes: Any) -> None:
    """Change a manifest as one who knows how it is sealed."""
    told = json.loads((folder / "manifest.json").read_text())
    del told["sha256"]
    (folder / "manifest.json").write_text(sealed({**told, **changes}))


def without(folder: Path, table: str) -> None:
    told = json.loads((folder / "manifest.json").read_text())
    del told["tables"][table]
    (folder / "manifest.json").write_text(json.dumps(told))


def id_of(place: Place) -> str:
    """Return which warehouse a backup is of."""
    return place.name.split("-")[1]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def more_rows(folder: Path) -> None:
    told = json.loads((folder / "manifest.json").read_text())["tables"]
    told["market_caps"]["rows"] += 1
    edited(folder, tables=told)


def not_parquet(folder: Path) -> None:
    """A file that is no Parquet, though it is the one the manifest tells of."""
    told = json.loads((folder / "manifest.json").read_text())["tables"]
    (folder / "market_caps.parquet").write_bytes(b"PAR1 no")
    told["market_caps"]["sha256"] = hashlib.sha256(b"PAR1 no").hexdigest()
    edited(folder, tables=told)


def hostile(folder: Path, **entry: object) -> None:
    told = json.loads((folder / "manifest.json").read_text())["tables"]
    told["market_caps"] |= entry
    edited(folder, tables=told)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped bit": (lambda folder: flip(folder / "market_caps.parquet"), "market_caps.parquet"),
    "truncated file": (
        lambda folder: (folder / "gaps.parquet").write_bytes(
            (folder / "gaps.parquet").read_bytes()[:-10]
        ),
        "gaps.parquet .* is not what was written",
    ),
    "empty file": (lambda folder: (folder / "ranks.parquet").write_bytes(b""), "ranks.parquet"),
    "missing file": (
        lambda folder: (folder / "partitions.parquet").unlink(),
        "partitions.parquet is missing",
    ),
    "swapped files": (
        lambda folder: shutil.copy(folder / "ohlc_daily.parquet", folder / "ohlc_hourly.parquet"),
        "ohlc_hourly.parquet",
    ),
    "no manifest": (lambda folder: (folder / "manifest.json").unlink(), "holds no backup"),
    "truncated manifest": (
        lambda folder: (folder / "manifest.json").write_text('{"made_at": "2026'),
        "manifest.json .*damaged",
    ),
    "manifest of bytes": (
        lambda folder: (folder / "manifest.json").write_bytes(b"\xff\xfe\x00"),
        "manifest.json .*damaged",
    ),
    "manifest of a list": (
        lambda folder: (folder / "manifest.json").write_text("[]"),
        "manifest.json .*damaged",
    ),
    "manifest without tables": (
        lambda folder: edited(folder, tables=None),
        "manifest.json .*damaged",
    ),
    "wrong count": (more_rows, "market_caps has 6 rows, its manifest says 7"),
    "not parquet": (not_parquet, "can't restore|damaged"),
    "statement for a type": (
        lambda folder: hostile(folder, columns={"date": "DATE); DROP TABLE gaps;--"}),
        "is no type",
    ),
    "file elsewhere": (lambda folder: hostile(folder, file="../ranks.parquet"), "is no file of"),
    "newer schema": (
        lambda folder: edited(folder, schema_version=migrations.newest() + 1),
        f"schema version {migrations.newest() + 1}, this program knows {migrations.newest()}",
    ),
    "table left out": (lambda folder: without(folder, "market_caps"), "its own checksum"),
    "unknown format": (lambda folder: edited(folder, format="evil"), "format 'evil'"),
    "other identity": (lambda folder: edited(folder, is_sandbox=False), "sandbox"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_backup_is_refused_and_nothing_is_made(
    kept: Path, tmp_path: Path, damage: str
) -> None:
    harm, told = DAMAGES[damage]
    harm(kept)
    before = left_in(tmp_path / "backups")
    with pytest.raises(WarehouseError, match=told) as refused:
        restore(kept, tmp_path / "new" / FILE_NAME)
    assert "\n" not in str(refused.value)
    assert left_in(tmp_path / "new") == []
    assert left_in(tmp_path / "backups") == before


@pytest.mark.parametrize("name", ["market_caps", "schema_migrations", "warehouse_info"])
def test_no_flipped_bit_goes_unseen(kept: Path, tmp_path: Path, name: str) -> None:
    file = kept / f"{name}.parquet"
    whole = file.read_bytes()
    for place in range(0, len(whole), max(1, len(whole) // 10)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 128]) + whole[place + 1 :])
        with pytest.raises(WarehouseError, match="is not what was written"):
            restore(kept, tmp_path / "new" / FILE_NAME)
    file.write_bytes(whole)
    restore(kept, tmp_path / "new" / FILE_NAME)


def test_a_home_with_a_warehouse_is_not_overwritten(kept: Path, filled: Warehouse) -> None:
    filled.write(Batch(caps((D3, "later", 1.0))), to())
    before = filled.path.read_bytes()
    with pytest.raises(WarehouseError, match=r"there is a warehouse in .*empty home"):
        restore(kept, filled.path)
    assert filled.path.read_bytes() == before
    assert left_in(filled.home).count(FILE_NAME) == 1


def test_a_folder_without_a_backup_is_told(tmp_path: Path) -> None:
    for source in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(WarehouseError, match="holds no backup: it has no manifest"):
            restore(source, tmp_path / "new" / FILE_NAME)


# Unfinished ones.


def test_a_backup_that_fails_is_no_backup(filled: Warehouse, tmp_path: Path, start: Start) -> None:
    whole = backup_at(filled.home, tmp_path / "backups", 0)
    largest = max(path.stat().st_size for path in Path(str(whole)).iterdir())
    child = start(f"""
import resource, signal
from crypto_assets.warehouse.backups import backup
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({largest - 10}, {largest - 10}))
try:
    backup(home, {str(tmp_path / "backups")!r})
except Exception as error:
    say(type(error).__name__ + ': ' + str(error))
""")
    out, err = child.communicate(timeout=60)
    assert err == ""
    assert out.startswith("WarehouseError: can't write a backup to ")
    assert [str(place) for place in list_backups(tmp_path / "backups")] == [str(whole)]


@pytest.mark.parametrize("moment", ["put_file", "pipe_file"])
def test_a_killed_backup_is_no_backup(
    filled: Warehouse, tmp_path: Path, start: Start, moment: str
) -> None:
    child = start(f"""
import os, signal
from fsspec.implementations.local import LocalFileSystem
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
LocalFileSystem.{moment} = die
from crypto_assets.warehouse.backups import backup
backup(home, {str(tmp_path / "backups")!r})
""")
    assert child.wait(60) == -9
    assert list_backups(tmp_path / "backups") == []
    (left,) = (tmp_path / "backups").iterdir()
    with pytest.raises(WarehouseError, match="holds no backup"):
        restore(left, tmp_path / "new" / FILE_NAME)
    whole = backup_at(filled.home, tmp_path / "backups", 0)
    assert list_backups(tmp_path / "backups") == [whole]


def test_two_backups_of_one_second_do_not_mix(filled: Warehouse, tmp_path: Path) -> None:
    first = backup_at(filled.home, tmp_path / "backups", 0)
    before = {path.name: path.read_bytes() for path in Path(str(first)).iterdir()}
    filled.write(Batch(caps((D3, "later", 1.0))), to())
    publish_run(filled.home, "run-2")
    with pytest.raises(WarehouseError, match="a backup of this very second"):
        backup_at(filled.home, tmp_path / "backups", 0)
    assert {path.name: path.read_bytes() for path in Path(str(first)).iterdir()} == before


# Retention.


def test_the_newest_backups_stay(filled: Warehouse, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    made = [backup_at(filled.home, folder, second) for second in range(5)]
    (folder / "notes.txt").write_text("mine")
    (folder / "crypto_assets-mine").mkdir()
    mine = id_of(made[0])
    assert prune(folder, 2, "01234567") == []
    assert prune(folder, 2, mine) == made[:3]
    assert list_backups(folder) == made[3:]
    assert prune(folder, 2, mine) == []
    assert prune(folder, 7, mine) == []
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "crypto_assets-mine").exists()
    restore(str(made[-1]), tmp_path / "new" / FILE_NAME)


@pytest.mark.parametrize(("age", "goes"), [(timedelta(hours=23), False), (timedelta(days=2), True)])
def test_what_a_killed_backup_left_goes_after_a_day(
    tmp_path: Path, age: timedelta, goes: bool
) -> None:
    left = tmp_path / (wall_now() - age).strftime("crypto_assets-01234567-%Y%m%dT%H%M%SZ")
    left.mkdir()
    (left / "ranks.parquet").write_bytes(b"half")
    assert prune(tmp_path, 7, "01234567") == []
    assert left.exists() is not goes


def test_a_table_somebody_added_comes_back_too(filled: Warehouse, tmp_path: Path) -> None:
    with filled.session("a test") as connection:
        connection.execute("CREATE TABLE mine AS SELECT 1 AS a, ['x', 'y'] AS b")
    publish_run(filled.home, "run-2")
    place, _ = backup(filled.home, tmp_path / "backups")
    restored = tmp_path / "new" / FILE_NAME
    restore(str(place), restored)
    assert dump(restored)["mine"] == [(1, ["x", "y"])]


@pytest.mark.parametrize("form", FORMATS)
def test_a_restored_warehouse_has_the_same_schema(
    filled: Warehouse, tmp_path: Path, form: Format
) -> None:
    place, _ = backup(filled.home, tmp_path / "backups", form)
    restored = tmp_path / "new" / FILE_NAME
    restore(str(place), restored)

    def schema(path: Path) -> list[tuple[object, ...]]:
        with duckdb.connect(str(path), read_only=True) as connection:
            return connection.execute(
                "SELECT table_name, column_name, data_type, is_nullable, comment "
                "FROM duckdb_columns() WHERE schema_name = 'main' ORDER BY ALL"
            ).fetchall()

    assert schema(restored) == schema(filled.path)


def test_a_folder_without_backups_has_nothing_to_prune(tmp_path: Path) -> None:
    assert prune(tmp_path / "nowhere", 1, "01234567") == []
    assert list_backups(tmp_path / "nowhere") == []


# Of an older program.


@pytest.fixture
def oldest(warehouse: Warehouse) -> Warehouse:
    """A published warehouse of schema version 1."""
    fill(warehouse)
    to_version_1(warehouse.path)
    published = warehouse.home / "published"
    published.mkdir()
    shutil.copy(warehouse.path, published / "crypto-000001.duckdb")
    (warehouse.home / "crypto.duckdb").symlink_to("published/crypto-000001.duckdb")
    return warehouse


@pytest.mark.parametrize("form", FORMATS)
def test_a_backup_of_an_older_schema_is_brought_up_to_date(
    oldest: Warehouse, tmp_path: Path, form: Format
) -> None:
    place, manifest = backup(oldest.home, tmp_path / "backups", form)
    assert manifest.schema_version == 1
    restored = Warehouse(tmp_path / "new" / FILE_NAME, IDENTITY, 20)
    restore(str(place), restored.path)
    before, after = dump(oldest.path), dump(restored.path)
    assert [row[:-1] for row in after["market_caps"]] == before["market_caps"]
    # The row that was seen again LATER had another value before, so it was known since then.
    assert {row[-1] for row in after["market_caps"]} == {SEEN}
    assert after["coin_list"] == before["coin_list"]
    assert [row[0] for row in after["schema_migrations"]] == [1, 2]
    with restored.session("test") as connection:
        assert [verdict.told for verdict in verify(connection) if not verdict.is_fine] == []


def test_a_live_backup_makes_a_live_home(tmp_path: Path) -> None:
    live = replace(IDENTITY, is_sandbox=False, history_start=date(2025, 5, 5))
    warehouse = Warehouse(tmp_path / "live" / FILE_NAME, live)
    warehouse.query("SELECT 1")
    publish_run(warehouse.home, "run-1")
    place, _ = backup(warehouse.home, tmp_path / "backups")
    restored = Warehouse(tmp_path / "new" / FILE_NAME, live)
    restore(str(place), restored.path)
    restored.query("SELECT 1")
    with pytest.raises(WarehouseError, match="never mix"):
        replace(restored, identity=IDENTITY).query("SELECT 1")


def test_a_log_left_by_a_lost_file_is_not_made_part_of_the_restored_one(
    filled: Warehouse, kept: Path, start: Start
) -> None:
    before = dump(filled.path)
    child = start("""
with warehouse.session('dying') as connection:
    connection.execute("SET wal_autocheckpoint = '1GB'")
    connection.execute('DELETE FROM market_caps')
    say('deleted')
    sys.stdin.readline()
""")
    assert child.stdout is not None
    assert child.stdout.readline() == "deleted\n"
    child.kill()
    child.wait()
    assert filled.path.with_name("warehouse.duckdb.wal").stat().st_size > 0
    filled.path.unlink()
    restore(kept, filled.path)
    assert dump(filled.path) == before


def test_what_a_killed_restore_left_is_cleared_by_the_next(kept: Path, tmp_path: Path) -> None:
    left = tmp_path / "new" / "restoring"
    left.mkdir(parents=True)
    (left / "ranks.parquet").write_bytes(b"half")
    restore(kept, tmp_path / "new" / FILE_NAME)
    assert left_in(tmp_path / "new") == [FILE_NAME]


def test_a_warehouse_made_meanwhile_is_not_replaced(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run may begin in the home while a large backup is being restored."""
    target = tmp_path / "new" / FILE_NAME
    imported = backups._import

    def slowly(*arguments: Any) -> None:
        imported(*arguments)
        target.write_bytes(b"a run's")

    monkeypatch.setattr(backups, "_import", slowly)
    with pytest.raises(WarehouseError, match="there is a warehouse in"):
        restore(kept, target)
    assert target.read_bytes() == b"a run's"
    assert left_in(target.parent) == [FILE_NAME]


def test_a_password_in_a_url_is_masked(filled: Warehouse) -> None:
    with pytest.raises(WarehouseError) as refused:
        backup(filled.home, "nowhere://someone:canary@host/x")
    assert "canary" not in str(refused.value)
    assert "//***@host/x" in str(refused.value)
