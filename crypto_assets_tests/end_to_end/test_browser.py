"""The platform in the browser: what people see and click in Dagster's UI, and what comes of it."""

import base64
import io
import re
from collections.abc import Iterator
from datetime import timedelta

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, expect

from crypto_assets.plots import PLOTS
from crypto_assets.sandbox import Market
from crypto_assets.tables import TABLES
from crypto_assets_tests.end_to_end.browser import LONG, Person, open_browser, open_page
from crypto_assets_tests.end_to_end.platforms import COINS, DAYS, Site, Up, open_site

# One platform for all; the daemon looks for backfills every half minute.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

DEPENDENCIES = {
    ("coin_list", "market_caps"),
    ("market_caps", "ranks"),
    ("market_caps", "ema_signals"),
    ("ranks", "ema_signals"),
    *((table, "daily_snapshot") for table in set(TABLES) - {"coin_list", "daily_snapshot"}),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, market: Market) -> Iterator[Site]:
    with open_site(tmp_path_factory.mktemp("site"), market) as opened:
        opened.write_settings()
        yield opened


@pytest.fixture(scope="module")
def up(site: Site) -> Up:
    """A platform in whose home there is the market of each closed day, and nothing else."""
    started = site.up()
    run_id = started.launch("__ASSET_JOB", ("coin_list", "market_caps"), site.first, site.last)
    assert site.ended(run_id, 120).is_success
    return started


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as opened:
        yield opened


@pytest.fixture
def person(up: Up, browser: Browser) -> Iterator[Person]:
    with open_page(browser, f"http://127.0.0.1:{up.port}") as opened:
        yield opened


def test_the_graph_shows_all_assets_and_what_depends_on_what(person: Person) -> None:
    person.visit("/asset-groups")
    person.show_all_groups()
    assert person.edges(DEPENDENCIES) == DEPENDENCIES
    assert person.nodes() == set(TABLES)


def test_a_day_materialized_in_the_dialog_brings_its_rows(
    person: Person, site: Site, market: Market
) -> None:
    day = site.first + timedelta(days=2)
    person.choose_days("fear_greed", str(day))
    person.button("Launch 1 run", person.dialog).click()
    person.follow("Launched run")
    expect(person.page.get_by_text("Success", exact=True).first).to_be_visible(timeout=LONG)
    person.visit("/assets/fear_greed?view=partitions")
    expect(person.page.get_by_text("Materialized (1)")).to_be_visible()
    stored = site.warehouse.query("SELECT date, value FROM fear_greed")
    (truth,) = market.fear_greed(day, day)["value"]
    assert [tuple(row) for row in stored.to_numpy()] == [(stored["date"][0], truth)]
    assert stored["date"][0].date() == day


def test_a_range_backfilled_in_the_dialog_fills_all_its_days(
    person: Person, site: Site, market: Market
) -> None:
    first, last = site.first + timedelta(days=1), site.last
    person.choose_days("ohlc_daily", f"[{first}...{last}]")
    expect(person.dialog).to_contain_text(f"{DAYS - 1} partitions")
    person.button("Launch backfill", person.dialog).click()
    person.follow("Created backfill")
    expect(person.page.get_by_text("100% completed")).to_be_visible(timeout=LONG)
    expect(person.page.get_by_text("Succeeded").first).to_be_visible()
    person.visit("/assets/ohlc_daily?view=partitions")
    expect(person.page.get_by_text(f"Materialized ({DAYS - 1})")).to_be_visible()
    expect(person.page.get_by_text("Failed (0)")).to_be_visible()
    stored = site.warehouse.query("SELECT date, coin_id, close FROM ohlc_daily ORDER BY 1")
    assert len(stored) == COINS * (DAYS - 1)
    for coin, rows in stored.groupby("coin_id"):
        truth = market.daily(str(coin), first, last)
        assert list(rows["date"]) == list(truth["date"])
        np.testing.assert_allclose(rows["close"], truth["price_usd"], rtol=1e-9)


def test_a_failed_check_says_how_many_rows_offend_it_and_which(person: Person, site: Site) -> None:
    was = _set_price(site, -5.0)
    person.open_check("market_caps", "contract_holds")
    person.button("Execute").click()
    expect(person.page.get_by_text("Failed").last).to_be_visible(timeout=LONG)
    expect(person.metadata("offending_rows")).to_contain_text(re.compile(r"offending_rows\s*1$"))
    person.metadata("examples").get_by_text("[Show Markdown]").click()
    examples = person.dialog.get_by_role("row")
    expect(examples).to_have_count(2)
    expect(examples.nth(0)).to_have_text(re.compile(r"date\s*coin_id\s*broken"))
    expect(examples.nth(1)).to_have_text(
        re.compile(rf"{site.last} 00:00:00\s*bitcoin\s*price_usd > 0")
    )
    person.button("Close", person.dialog).click()
    _set_price(site, was)
    person.button("Execute").click()
    expect(person.metadata("offending_rows")).to_contain_text(
        re.compile(r"offending_rows\s*0$"), timeout=LONG
    )
    expect(person.page.get_by_text("Passed")).to_be_visible()


def _set_price(site: Site, price: float) -> float:
    """Change the newest stored close of bitcoin, as no run would; return what it was."""
    with site.warehouse.session("tampering") as connection:
        where = "WHERE coin_id = 'bitcoin' AND date = ?"
        found = connection.execute(f"SELECT price_usd FROM market_caps {where}", [site.last])
        (was,) = found.fetchone() or ()
        connection.execute(f"UPDATE market_caps SET price_usd = ? {where}", [price, site.last])
    return float(was)


def test_a_run_is_told_in_the_launchpad_which_coins_to_ask_for(
    person: Person, site: Site, market: Market
) -> None:
    person.choose_days("ohlc_hourly", str(site.last))
    person.dialog.get_by_text("Config", exact=True).click()
    person.dialog.get_by_text("Add config").click()
    expect(person.dialog).to_contain_text("Config Editor")
    _write_config(person, force="perhaps")
    expect(person.dialog).to_contain_text("CoinGecko ids, for example")
    expect(person.dialog).to_contain_text("Ask again for final values")
    expect(person.dialog).to_contain_text('Value "perhaps" of type')
    expect(person.button("Save config", person.dialog)).to_be_disabled()
    _write_config(person, force="true")
    expect(person.dialog).to_contain_text("No errors")
    person.button("Save config", person.dialog).click()
    person.button("Launch 1 run", person.dialog).click()
    person.follow("Launched run")
    expect(person.page.get_by_text("Success", exact=True).first).to_be_visible(timeout=LONG)
    stored = site.warehouse.query("SELECT coin_id, open_time, close FROM ohlc_hourly ORDER BY 2")
    assert set(stored["coin_id"]) == {"bitcoin"}
    truth = market.candles("bitcoin", "1h", *(site.last + timedelta(days=n) for n in (0, 1)))
    assert list(stored["open_time"]) == list(truth["open_time"])
    np.testing.assert_allclose(stored["close"], truth["close"], rtol=1e-9)


def _write_config(person: Person, force: str) -> None:
    """Write the configuration of the step into the editor, over what stands there."""
    person.dialog.locator(".CodeMirror").click()
    person.page.keyboard.press("Control+A")
    lines = (
        "ops:",
        "  ohlc_hourly:",
        "    config:",
        "      coins: [bitcoin]",
        f"      force: {force}",
    )
    person.page.keyboard.insert_text("\n".join(lines))


def test_without_a_browser_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(pytest.fail.Exception, match="install the package chromium"), open_browser():
        pass


def test_a_materialization_shows_its_plot(person: Person, site: Site, up: Up) -> None:
    # On one of these days at least there was trading, and it is told of by now.
    run_id = up.launch("__ASSET_JOB", ("etf_flows",), site.first, site.last)
    assert site.ended(run_id, 120).is_success
    person.visit("/assets/etf_flows")
    person.metadata("plot").get_by_text("[Show Markdown]").click()
    picture = person.dialog.get_by_role("img", name=PLOTS["etf_flows"].alt)
    expect(picture).to_be_visible()
    kind, _, data = str(picture.get_attribute("src")).partition(";base64,")
    assert kind == "data:image/png"
    size = Image.open(io.BytesIO(base64.b64decode(data))).size
    # The browser has decoded it, and shows it.
    assert picture.evaluate("image => [image.naturalWidth, image.naturalHeight]") == list(size)
    assert size == (720, 300)
