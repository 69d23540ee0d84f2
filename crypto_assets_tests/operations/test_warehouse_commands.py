"""backup, restore, verify and diff, as people call them."""

import json
import re
import shutil
from pathlib import Path

import duckdb
import pytest

import crypto_assets
from crypto_assets_tests.operations.commands import call, spawn
from crypto_assets_tests.operations.conftest import Demo


@pytest.fixture(scope="module")
def kept(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup of the demo, made by the command."""
    folder = tmp_path_factory.mktemp("kept")
    told = spawn("backup", "--to", folder / "backups", "--home", demo.home, cwd=folder)
    assert told.code == 0, told.err
    (made,) = (folder / "backups").iterdir()
    assert str(made) in told.out
    rows = sum(
        table["rows"]
        for table in json.loads((made / "manifest.json").read_text())["tables"].values()
    )
    assert f"Backed up {rows:,} rows of " in told.out
    return made


def counts(home: Path) -> dict[str, int]:
    with crypto_assets.connect(home) as connection:
        names = connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
        return {name: len(connection.execute(f"FROM {name}").fetchall()) for (name,) in names}


def settings_for(home: Path, of: Path) -> None:
    """Give a new home the settings of another one: a sandbox's belong to its data."""
    home.mkdir()
    shutil.copy(of / "crypto_assets.yaml", home / "crypto_assets.yaml")


def test_a_backup_is_restored_verified_and_equal(demo: Demo, kept: Path, tmp_path: Path) -> None:
    home = tmp_path / "new"
    settings_for(home, demo.home)
    restored = spawn("restore", kept, "--home", home, cwd=tmp_path)
    assert restored.code == 0, restored.err
    assert re.search(r"Restored [\d,]+ rows as of 20\d\d-", restored.out)
    assert counts(home) == counts(demo.home)
    verified = spawn("verify", "--home", home, cwd=tmp_path)
    assert verified.code == 0, verified.out
    assert re.search(r"^(\d+) of \1 verified\.$", verified.out.strip())
    for pair in ((demo.home, home), (demo.home, kept), (kept, home)):
        compared = call("diff", *pair)
        assert compared.code == 0, compared.out
        assert "They are equal in content." in compared.out


def test_a_restore_over_a_warehouse_is_refused_in_a_sentence(demo_copy: Path, kept: Path) -> None:
    before = (demo_copy / "warehouse.duckdb").read_bytes()
    told = spawn("restore", kept, "--home", demo_copy, cwd=demo_copy).sentence
    assert "there is a warehouse in" in told
    assert (demo_copy / "warehouse.duckdb").read_bytes() == before


def test_a_damaged_backup_is_refused_in_a_sentence(demo: Demo, kept: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(kept, tmp_path / "damaged")
    with (damaged / "ranks.parquet").open("ab") as file:
        file.write(b"!")
    home = tmp_path / "new"
    settings_for(home, demo.home)
    told = call("restore", damaged, "--home", home).sentence
    assert "ranks.parquet" in told
    assert not (home / "warehouse.duckdb").exists()
    assert not (home / "crypto.duckdb").exists()


def test_a_sandbox_backup_does_not_fit_a_live_home(kept: Path, tmp_path: Path) -> None:
    told = call("restore", kept, "--home", tmp_path / "new").sentence
    needed = r"needs 'history: \{start: 20\d\d-\d\d-\d\d\}', a section 'sandbox: \{\}'"
    assert re.search(needed, told)
    assert not (tmp_path / "new" / "warehouse.duckdb").exists()


def test_the_folder_of_backups_is_no_backup_and_names_the_newest(
    kept: Path, tmp_path: Path
) -> None:
    told = call("restore", kept.parent, "--home", tmp_path / "new").sentence
    assert f"name one of them, the newest is {kept}" in told


def test_a_changed_value_is_found_by_verify_and_by_diff(demo: Demo, demo_copy: Path) -> None:
    with duckdb.connect(str(demo_copy / "warehouse.duckdb")) as connection:
        connection.execute(
            "UPDATE ohlc_daily SET volume_usd = 7 WHERE coin_id = 'bitcoin' "
            "AND date = (SELECT min(date) FROM ohlc_daily)"
        )
        (day,) = connection.execute("SELECT min(date) FROM ohlc_daily").fetchone() or ()
    verified = spawn("verify", "--home", demo_copy, cwd=demo_copy)
    assert verified.code == 1
    assert f"ohlc_daily, content hashes: the rows of 1 days, {day} to {day}" in verified.out
    assert "1 of these need attention" in verified.err
    # The file itself: a home is compared by its publication, which nobody touched.
    compared = spawn("diff", demo.home, demo_copy / "warehouse.duckdb", cwd=demo_copy)
    assert compared.code == 1
    (line,) = [row for row in compared.out.splitlines() if "ohlc_daily" in row]
    assert line.split()[-3:] == ["1", str(day), str(day)]
    assert "they differ in content" in compared.err
    assert call("diff", demo.home, demo_copy).code == 0


def test_a_csv_backup_goes_where_the_settings_say(demo: Demo, demo_copy: Path) -> None:
    file = demo_copy / "crypto_assets.yaml"
    file.write_text(file.read_text() + "\nbackup:\n  format: csv\n")
    told = call("backup", "--home", demo_copy)
    assert told.code == 0, told.err
    (made,) = (demo_copy / "backups").iterdir()
    assert (made / "market_caps.csv").exists()
    compared = call("diff", made, demo.home)
    assert compared.code == 0, compared.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("backup",), "nothing has been published"),
        (("verify",), "there is no warehouse in"),
        (("restore", "nowhere"), "holds no backup"),
    ],
    ids=["backup", "verify", "restore"],
)
def test_what_can_not_be_done_is_one_sentence(
    tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    assert said in call(*words, "--home", tmp_path / "home").sentence


@pytest.mark.parametrize("other", ["nowhere", "notes.txt"])
def test_a_diff_with_something_else_is_one_sentence(demo: Demo, tmp_path: Path, other: str) -> None:
    (tmp_path / "notes.txt").write_text("no database")
    assert str(tmp_path / other) in call("diff", demo.home, tmp_path / other).sentence
