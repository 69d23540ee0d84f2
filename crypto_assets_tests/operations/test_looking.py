"""`sql`, `status` and `doctor`."""

import shutil
from datetime import date
from pathlib import Path

import pytest
import yaml

from crypto_assets.operations.doctor import Finding, examine
from crypto_assets.sandbox import Market
from crypto_assets.tables import TABLES
from crypto_assets_tests.lab import Lab, open_lab
from crypto_assets_tests.operations.commands import call, spawn
from crypto_assets_tests.operations.conftest import Demo

KEY = "canary-4d2f"


def test_sql_prints_the_answer_as_a_table(demo: Demo) -> None:
    done = call(
        "sql",
        "SELECT coin_id, market_cap_rank FROM ranks ORDER BY date DESC, 2 LIMIT 1",
        "--home",
        demo.home,
    )
    words = done.out.split()
    assert words[:2] == ["coin_id", "market_cap_rank"]
    assert words[-2:] == ["bitcoin", "1"]


def test_sql_prints_what_is_stored_and_not_what_rich_makes_of_it(demo: Demo) -> None:
    done = call("sql", "SELECT '[red]x[/red][/]' AS \"[b]\", NULL AS n", "--home", demo.home)
    assert done.code == 0
    assert "[red]x[/red][/]" in done.out
    assert "[b]" in done.out


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("SELEC 1", "Parser Error"),
        ("FROM nowhere", "Catalog Error"),
        ("DROP TABLE ranks", "this reads only"),
        ("SELECT 1/", "Parser Error"),
    ],
)
def test_a_query_that_fails_is_one_line(demo: Demo, query: str, reason: str) -> None:
    assert reason in call("sql", query, "--home", demo.home).sentence


@pytest.mark.parametrize("query", ["", "-- nothing", "SET threads = 1"])
def test_a_query_without_an_answer_is_no_traceback(demo: Demo, query: str) -> None:
    assert "Traceback" not in call("sql", query, "--home", demo.home).err


@pytest.mark.parametrize("words", [("sql", "SELECT 1"), ("status",)])
def test_a_home_without_a_publication_says_how_to_get_one(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    told = call(*words, "--home", tmp_path).sentence
    assert "nothing has been published" in told
    assert "crypto-assets demo" in told
    assert list(tmp_path.iterdir()) == []


def test_status_shows_every_table_and_the_publication(demo: Demo) -> None:
    done = call("status", "--home", demo.home)
    assert done.code == 0
    assert all(table in done.out for table in TABLES)
    assert "Version 1 was published at " in done.out
    assert "Missing" not in done.out


@pytest.mark.slow
def test_status_names_the_coins_that_are_missing_and_why(tmp_path: Path, market: Market) -> None:
    with open_lab(tmp_path, market, universe={"tracked": 30}) as lab:
        lab.server.faults.add({"kind": "status", "code": 500, "match": {"coin_id": "solana"}})
        tables = ["market_caps", "ranks", "ema_signals"]
        assert lab.run(tables, date(2026, 3, 8), date(2026, 3, 9)).succeeded
        write_settings(lab)
    done = call("status", "--home", tmp_path)
    assert done.code == 0, done.err
    told = done.out
    assert "Missing: market_caps solana, 2026-03-08 to 2026-03-09: " in told
    assert "the provider failed" in told


def write_settings(lab: Lab) -> None:
    """Leave in the home what the command line needs to know of it."""
    tree = {
        "sandbox": {"seed": lab.server.seed, "clock": lab.now.isoformat()},
        "history": {"start": "2026-01-01"},
    }
    (lab.home / "crypto_assets.yaml").write_text(yaml.safe_dump(tree))


@pytest.mark.slow
def test_status_says_what_withholds_the_publication(lab: Lab) -> None:
    day = date(2026, 3, 9)
    lab.run(["etf_flows"], day)
    with lab.warehouse.session("a test") as connection:
        connection.execute("UPDATE etf_flows SET source = 'nowhere' WHERE ticker = 'IBIT'")
        connection.execute(
            "INSERT INTO etf_flows SELECT * REPLACE ('FAKE' AS ticker, 'nowhere' AS source, "
            "now() AT TIME ZONE 'UTC' AS materialized_at) FROM etf_flows LIMIT 1"
        )
    lab.run(["fear_greed"], day)
    told = call("status", "--home", lab.home).out
    assert "row(s) of etf_flows break 'source_fits_home' on 2026-03-09 to 2026-03-09" in told
    assert "Version 1 was published" in told


def test_status_says_what_withholds_the_very_first_publication(lab: Lab) -> None:
    with lab.warehouse.session("a test") as connection:
        connection.execute(
            "INSERT INTO fear_greed VALUES ('2026-03-08', 50, 'Neutral', 'neutral', true, "
            "'2026-03-09', 'nowhere', 'r', now() AT TIME ZONE 'UTC', NULL, NULL)"
        )
    lab.run(["fear_greed"], date(2026, 3, 9))
    done = call("status", "--home", lab.home)
    assert "source_fits_home" in done.out + done.err


def test_status_says_that_the_next_run_publishes_what_changed_since(demo_copy: Path) -> None:
    (demo_copy / "warehouse.duckdb").touch()
    assert "the end of the next run publishes it" in call("status", "--home", demo_copy).out


def findings(lab: Lab) -> dict[str, Finding]:
    """What `doctor` finds in a lab: the command itself always starts a sandbox of its own."""
    return {finding.subject: finding for finding in examine(lab.settings)}


def test_doctor_finds_a_demo_home_in_order(demo: Demo) -> None:
    done = call("doctor", "--home", demo.home)
    assert done.code == 0, done.out
    lines = done.out.strip().splitlines()
    subjects = [line.split()[1].rstrip(":") for line in lines]
    assert subjects == [
        "settings",
        "versions",
        "home",
        "disk",
        "warehouse",
        "coingecko",
        "alternative.me",
        "farside",
    ]
    assert all(line.startswith("ok ") for line in lines)


def test_doctor_names_an_unreachable_provider_and_goes_on(tmp_path: Path, market: Market) -> None:
    nowhere = {"base_url": "http://127.0.0.1:9"}
    with open_lab(tmp_path, market, alternative_me=nowhere) as lab:
        found = findings(lab)
    assert [name for name, finding in found.items() if not finding.is_fine] == ["alternative.me"]
    assert "127.0.0.1:9" in found["alternative.me"].told
    assert "check the network" in found["alternative.me"].told


@pytest.mark.parametrize("plan", ["demo", "basic"])
def test_doctor_tells_a_wrong_key_and_what_to_set_without_showing_it(
    tmp_path: Path, market: Market, plan: str
) -> None:
    with open_lab(tmp_path, market, plan, coingecko={"plan": plan, "api_key": KEY}) as lab:
        found = findings(lab)
    assert [name for name, finding in found.items() if not finding.is_fine] == ["coingecko"]
    assert "CRYPTO_ASSETS_COINGECKO__API_KEY" in found["coingecko"].told
    assert KEY not in str(found)


@pytest.mark.parametrize("plan", ["demo", "basic"])
def test_doctor_accepts_the_right_key(tmp_path: Path, market: Market, plan: str) -> None:
    key = f"CG-sandbox-{plan}"
    with open_lab(tmp_path, market, plan, coingecko={"plan": plan, "api_key": key}) as lab:
        found = findings(lab)
    assert all(finding.is_fine for finding in found.values()), found
    assert key not in str(found)


@pytest.mark.slow
def test_doctor_ends_with_a_sentence_and_a_code_where_something_is_amiss(tmp_path: Path) -> None:
    nowhere = {"base_url": "http://127.0.0.1:9"}
    tree = {"coingecko": nowhere, "alternative_me": nowhere, "farside": nowhere}
    (tmp_path / "crypto_assets.yaml").write_text(yaml.safe_dump(tree))
    done = call("doctor", "--home", tmp_path)
    assert done.sentence == "crypto-assets: 3 of these need attention"
    failed = [line.split()[1] for line in done.out.splitlines() if line.startswith("FAIL")]
    assert failed == ["coingecko:", "alternative.me:", "farside:"]


@pytest.mark.slow
def test_doctor_tells_that_the_home_is_no_folder_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = {"base_url": "http://127.0.0.1:9"}
    tree = {"coingecko": nowhere, "alternative_me": nowhere, "farside": nowhere}
    (tmp_path / "crypto_assets.yaml").write_text(yaml.safe_dump(tree))
    (tmp_path / "taken").write_text("")
    monkeypatch.chdir(tmp_path)
    done = call("doctor", "--home", "taken")
    assert done.code != 0
    assert "FAIL home: can't write to the home" in done.out
    assert "FAIL farside" in done.out


def test_invalid_settings_are_one_sentence_that_names_the_field(tmp_path: Path) -> None:
    (tmp_path / "crypto_assets.yaml").write_text("universe: {traked: 5}\n")
    for words in (("status",), ("doctor",), ("refresh",), ("up",)):
        told = call(*words, "--home", tmp_path).sentence
        assert "universe.traked" in told
        assert "did you mean 'tracked'" in told
    (tmp_path / "crypto_assets.yaml").write_text("universe: {tracked: many}\n")
    told = spawn("status", "--home", tmp_path, cwd=tmp_path).sentence
    assert "universe.tracked" in told


def test_a_published_copy_is_read_while_the_warehouse_is_locked(demo: Demo, tmp_path: Path) -> None:
    from crypto_assets.warehouse.session import warehouse_lock

    home = shutil.copytree(demo.home, tmp_path / "home", symlinks=True)
    with warehouse_lock(home / "warehouse.duckdb", "a long write"):
        assert call("status", "--home", home).code == 0
        assert call("sql", "SELECT 1", "--home", home).code == 0
