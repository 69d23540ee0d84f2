"""Settings: what wins over what, what is refused and how, and that no key is ever shown."""

import contextlib
import os
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import SecretStr

from crypto_assets.settings import (
    SandboxSettings,
    Settings,
    SettingsError,
    environment_names,
    load_settings,
    sandbox_base_urls,
    validated,
)

CANARY = "CG-canary-k3y"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty working directory and an environment without our names."""
    for name in [name for name in os.environ if name.startswith("CRYPTO_ASSETS_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    yield
    # Reading settings makes nothing.
    assert not Path("data").exists()


def in_file(text: str, folder: str = ".") -> None:
    Path(folder).mkdir(exist_ok=True)
    (Path(folder) / "crypto_assets.yaml").write_text(text, encoding="utf-8")


def refusal(tree: dict[str, Any]) -> str:
    with pytest.raises(SettingsError) as refused:
        validated(tree)
    return str(refused.value)


def load_refusal() -> str:
    with pytest.raises(SettingsError) as refused:
        load_settings()
    return str(refused.value)


# --- what wins


def test_nothing_set_is_keyless_on_the_live_hosts() -> None:
    settings = load_settings()
    assert settings.home == Path("data").absolute()
    assert (settings.coingecko.plan, settings.coingecko.api_key) == ("keyless", None)
    # None: the plan's own host.
    assert settings.coingecko.base_url is None
    assert settings.alternative_me.base_url == "https://api.alternative.me"
    assert settings.farside.base_url == "https://farside.co.uk"
    assert settings.universe.tracked == 100
    assert settings.universe.headline
    assert settings.signals.span_pairs == [(12, 26), (20, 50), (50, 200)]
    assert not settings.is_sandbox


def test_the_schedules_run_when_the_design_says() -> None:
    schedules = load_settings().schedules
    assert schedules.market_refresh == "0 * * * *"
    assert schedules.hourly_candles == "30 * * * *"
    assert schedules.fear_greed == "10 0 * * *"
    assert schedules.daily_close == "0 1 * * *"
    assert schedules.etf_flows == "30 9 * * *"


def test_what_a_sandbox_home_is_made_of_does_not_depend_on_who_looks_at_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    in_file("universe: {tracked: 10}\nsandbox: {seed: 1}")
    monkeypatch.setenv("CRYPTO_ASSETS_UNIVERSE__TRACKED", "30")
    monkeypatch.setenv("CRYPTO_ASSETS_FARSIDE__BASE_URL", "http://127.0.0.1:1")
    settings = load_settings()
    assert settings.universe.tracked == 10
    assert settings.farside.base_url == "http://127.0.0.1:1"


def test_environment_wins_over_dotenv_over_file_over_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    in_file("universe: {tracked: 10}\nfetch: {threads: 2, timeout_seconds: 5}")
    Path(".env").write_text("CRYPTO_ASSETS_UNIVERSE__TRACKED=20\nCRYPTO_ASSETS_FETCH__THREADS=4\n")
    monkeypatch.setenv("CRYPTO_ASSETS_UNIVERSE__TRACKED", "30")
    settings = load_settings()
    assert settings.universe.tracked == 30
    assert settings.fetch.threads == 4
    assert settings.fetch.timeout_seconds == 5
    assert settings.fetch.max_missing_share == 0.05


def test_what_the_caller_names_wins_over_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRYPTO_ASSETS_HOME", "from-environment")
    monkeypatch.setenv("CRYPTO_ASSETS_UNIVERSE__TRACKED", "30")
    settings = load_settings("asked", {"universe": {"tracked": 5}})
    assert settings.home == Path("asked").absolute()
    assert settings.universe.tracked == 5


def test_the_file_of_the_home_replaces_that_of_the_working_directory() -> None:
    in_file("home: elsewhere\nuniverse: {tracked: 10}\nfetch: {threads: 2}")
    in_file("universe: {tracked: 20}", "elsewhere")
    settings = load_settings()
    assert settings.home == Path("elsewhere").absolute()
    assert settings.universe.tracked == 20
    # As a whole: nothing of the other file is left.
    assert settings.fetch.threads == 16


@pytest.mark.parametrize("named_in", ["environment", "dotenv", "file", "argument"])
def test_the_home_is_absolute_wherever_it_is_named(
    named_in: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if named_in == "environment":
        monkeypatch.setenv("CRYPTO_ASSETS_HOME", "here")
    elif named_in == "dotenv":
        Path(".env").write_text("CRYPTO_ASSETS_HOME=here\n")
    elif named_in == "file":
        in_file("home: here")
    found = load_settings("here" if named_in == "argument" else None)
    assert found.home == Path("here").absolute()


def test_every_setting_has_its_environment_name(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {
        "CRYPTO_ASSETS_HOME": "h",
        "CRYPTO_ASSETS_COINGECKO__BASE_URL": "http://localhost:1/api/v3/",
        "CRYPTO_ASSETS_COINGECKO__PLAN": "demo",
        "CRYPTO_ASSETS_COINGECKO__API_KEY": CANARY,
        "CRYPTO_ASSETS_UNIVERSE__TRACKED": "7",
        "CRYPTO_ASSETS_HISTORY__START": "2024-02-29",
        "CRYPTO_ASSETS_SCHEDULES__ENABLED": "false",
        # Not a setting: where tests find recorded responses.
        "CRYPTO_ASSETS_RECORDINGS": "/r",
    }
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert settings.home == Path("h").absolute()
    assert settings.coingecko.base_url == "http://localhost:1/api/v3"
    assert settings.coingecko.plan == "demo"
    assert settings.coingecko.api_key == SecretStr(CANARY)
    assert settings.universe.tracked == 7
    assert settings.history.start == date(2024, 2, 29)
    assert settings.schedules.enabled is False


@pytest.mark.parametrize(
    ("text", "coins"),
    [
        ("bitcoin", ["bitcoin"]),
        ("bitcoin, ethereum ,solana,", ["bitcoin", "ethereum", "solana"]),
        ("[bitcoin, '1move token']", ["bitcoin", "1move token"]),
        ("boringdao-[old], 1move token", ["boringdao-[old]", "1move token"]),
        ("", []),
    ],
)
def test_a_list_of_coins_comes_as_text(
    text: str, coins: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRYPTO_ASSETS_UNIVERSE__ALWAYS", text)
    assert load_settings().universe.always == coins


def test_span_pairs_come_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRYPTO_ASSETS_SIGNALS__SPAN_PAIRS", "[[5, 12], [12, 26]]")
    assert load_settings().signals.span_pairs == [(5, 12), (12, 26)]


def test_settings_handed_on_as_environment_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    tree: dict[str, Any] = sandbox_base_urls("http://127.0.0.1:9") | {
        "universe": {"tracked": 3, "always": ["a", "b c"]},
        "signals": {"span_pairs": [[3, 9]]},
        "sandbox": {"clock": datetime.fromisoformat("2026-02-28T12:00:00")},
    }
    for name, value in environment_names(tree).items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert settings.coingecko.base_url == "http://127.0.0.1:9/coingecko/api/v3"
    assert settings.universe.always == ["a", "b c"]
    assert settings.signals.span_pairs == [(3, 9)]
    assert settings.sandbox is not None
    assert settings.sandbox.clock == datetime.fromisoformat("2026-02-28T12:00:00")


# --- what is refused, field by field


@pytest.mark.parametrize(
    ("tree", "named"),
    [
        # missing
        ({"coingecko": {"plan": "demo"}}, ["coingecko", "'demo'", "api_key"]),
        ({"coingecko": {"plan": "analyst", "api_key": ""}}, ["coingecko", "api_key"]),
        # unknown, with a suggestion and what there is
        ({"univers": {}}, ["'univers'", "did you mean 'universe'?", "coingecko", "history"]),
        (
            {"universe": {"traked": 5}},
            ["'universe.traked'", "did you mean 'tracked'?", "always", "headline"],
        ),
        ({"sandbox": {"sed": 1}}, ["'sandbox.sed'", "did you mean 'seed'?", "clock"]),
        ({"fetch": {"zzz": 1}}, ["'fetch.zzz'", "threads"]),
        ({1: 2}, ["'1'"]),
        # wrong type
        ({"universe": {"tracked": "many"}}, ["universe.tracked", "'many'", "integer"]),
        ({"universe": {"tracked": 1.5}}, ["universe.tracked", "1.5", "integer"]),
        ({"universe": {"tracked": True}}, ["universe.tracked", "True", "integer"]),
        ({"universe": {"tracked": None}}, ["universe.tracked", "integer"]),
        ({"universe": 5}, ["'universe'", "5"]),
        ({"universe": {"always": [1]}}, ["universe.always.0", "string"]),
        ({"history": {"start": "2026-02-30"}}, ["history.start", "2026-02-30", "date"]),
        ({"history": {"start": "2023-02-29"}}, ["history.start", "2023-02-29"]),
        ({"schedules": {"enabled": "perhaps"}}, ["schedules.enabled", "'perhaps'"]),
        # range
        ({"universe": {"tracked": 0}}, ["universe.tracked", "0", "greater than or equal to 1"]),
        ({"universe": {"tracked": -5}}, ["universe.tracked", "-5"]),
        ({"universe": {"tracked": 5001}}, ["universe.tracked", "5000"]),
        ({"fetch": {"threads": -1}}, ["fetch.threads", "-1"]),
        ({"fetch": {"timeout_seconds": -0.5}}, ["fetch.timeout_seconds", "greater than 0"]),
        ({"fetch": {"timeout_seconds": float("nan")}}, ["fetch.timeout_seconds"]),
        ({"fetch": {"timeout_seconds": float("inf")}}, ["fetch.timeout_seconds"]),
        ({"fetch": {"retry_budget_seconds": -1}}, ["fetch.retry_budget_seconds"]),
        ({"fetch": {"max_missing_share": 1.1}}, ["fetch.max_missing_share", "1"]),
        ({"coingecko": {"calls_per_minute": 0}}, ["coingecko.calls_per_minute"]),
        ({"coingecko": {"plan": "gold"}}, ["coingecko.plan", "'gold'", "'analyst'"]),
        ({"history": {"start": "2999-01-01"}}, ["history.start", "today"]),
        ({"history": {"start": "2013-04-27"}}, ["history.start", "2013-04-28"]),
        ({"sandbox": {"port": 65536}}, ["sandbox.port", "65535"]),
        # empty
        ({"universe": {"headline": []}}, ["universe.headline", "at least 1"]),
        ({"universe": {"always": [""]}}, ["universe.always.0", "at least 1"]),
        ({"signals": {"span_pairs": []}}, ["signals.span_pairs", "at least 1"]),
        # spans
        ({"signals": {"span_pairs": [[26, 12]]}}, ["signals.span_pairs", "26", "fast_span <"]),
        ({"signals": {"span_pairs": [[12, 12]]}}, ["signals.span_pairs", "fast_span <"]),
        ({"signals": {"span_pairs": [[1, 12]]}}, ["signals.span_pairs", "2 <="]),
        ({"signals": {"span_pairs": [[-5, 12]]}}, ["signals.span_pairs", "2 <="]),
        ({"signals": {"span_pairs": [[5, 9], [5, 9]]}}, ["signals.span_pairs", "twice"]),
        ({"signals": {"span_pairs": [[5, 9, 12]]}}, ["signals.span_pairs"]),
        ({"signals": {"span_pairs": "[[12, 26]"}}, ["signals.span_pairs"]),
        ({"universe": {"always": "[a, 'b"}}, ["universe.always"]),
    ],
)
def test_a_setting_at_fault_is_named_with_what_is_allowed(
    tree: dict[str, Any], named: list[str]
) -> None:
    said = refusal(tree)
    assert "\n" not in said
    for word in named:
        assert word in said


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.coingecko.com",
        "ftp://host",
        "file:///etc/passwd",
        "http://a b",
        "http://",
        "https:///x",
    ],
)
@pytest.mark.parametrize("provider", ["coingecko", "alternative_me", "farside"])
def test_a_base_url_needs_a_scheme_and_a_host(provider: str, url: str) -> None:
    said = refusal({provider: {"base_url": url}})
    assert f"'{provider}.base_url'" in said
    assert "http://" in said


BAD_CRONS = [
    *("", "@daily", "* * * *", "* * * * * *", "a * * * *", "-1 * * * *", "1,,2 * * * *"),
    *("60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8", "5-1 * * * *"),
    *("*/0 * * * *", "0 0 31 2 *"),
]


@pytest.mark.parametrize("cron", BAD_CRONS)
def test_a_bad_cron_expression_is_refused(cron: str) -> None:
    said = refusal({"schedules": {"daily_close": cron}})
    assert "schedules.daily_close" in said
    assert "five fields" in said or "never happens" in said


@pytest.mark.parametrize(
    "cron", ["*/15 * * * *", "0 9-17 * * 1-5", "0,30 0 1 1 7", "5 4-20/2 * * *"]
)
def test_a_good_cron_expression_is_kept(cron: str) -> None:
    assert validated({"schedules": {"daily_close": cron}}).schedules.daily_close == cron


def test_all_faults_are_told_at_once() -> None:
    said = refusal(
        {
            "universe": {"tracked": 0, "headlines": []},
            "signals": {"span_pairs": [[9, 5]]},
            "coingecko": {"plan": "pro"},
            "fetch": {"threads": "x"},
        }
    )
    faulty = "universe.tracked universe.headlines signals.span_pairs coingecko.plan fetch.threads"
    for name in faulty.split():
        assert f"'{name}'" in said
    assert said.count("; ") == 4


@pytest.mark.parametrize(
    "text",
    [
        "universe: {tracked: 5",
        "universe:\n\t- tracked",
        "universe: [1, 2",
        "\x00",
        "? [a, b]\n: 1",
        "history: {start: 2026-13-45}",
        "sandbox: {clock: 2026-01-01 99:00:00}",
        "universe: {tracked: !!int x}",
        "- universe",
        "just words",
        "home: 5",
        "home: {a: 1}",
        "home: [a]",
        "sandbox: {clock: '0001-01-01T00:00:00+10:00'}",
    ],
)
def test_a_file_that_holds_no_settings_is_refused_in_a_sentence(text: str) -> None:
    in_file(text)
    assert "\n" not in load_refusal()


def test_a_file_that_is_not_yaml_is_named_with_its_line() -> None:
    in_file("universe:\n  tracked: 5\n bad: [")
    said = load_refusal()
    assert "crypto_assets.yaml" in said
    assert "(line 3)" in said


def test_a_file_that_is_not_text_is_refused() -> None:
    Path("crypto_assets.yaml").write_bytes(b"\xff\xfe\xff")
    assert "crypto_assets.yaml" in load_refusal()


def test_a_dotenv_that_is_not_text_is_refused() -> None:
    Path(".env").write_bytes(b"\xff\xfe=1\n")
    assert ".env" in load_refusal()


@pytest.mark.parametrize(
    "name", ["HOME__X", "UNIVERSE__TRACKED__X", "UNIVERSE", "", "NO_SUCH", "__"]
)
def test_an_environment_name_that_is_no_setting_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"CRYPTO_ASSETS_{name}", "1")
    assert name.lower().split("__")[0] in load_refusal()


def test_an_empty_file_changes_nothing() -> None:
    in_file("# nothing yet\n")
    assert load_settings() == Settings(home=Path("data").absolute())


@pytest.mark.parametrize(
    "hostile", ["x'); DROP TABLE t;--", "../..", "?x=1", "%2F", "\u202egnp", "a" * 10_000, "=cmd()"]
)
def test_hostile_coin_ids_are_coin_ids(hostile: str) -> None:
    assert validated({"universe": {"always": [hostile]}}).universe.always == [hostile]


# --- the key


@pytest.mark.parametrize("key", [CANARY, f"{CANARY}\nX-Injected: {CANARY}", f" {CANARY} "])
def test_a_key_is_never_shown(key: str) -> None:
    settings = validated({"coingecko": {"plan": "demo", "api_key": key}})
    shown = [str(settings), repr(settings), f"{settings.coingecko}", settings.model_dump_json()]
    shown += [str(settings.model_dump()), *environment_names(settings.model_dump()).values()]
    assert not any(CANARY in text for text in shown)


@pytest.mark.parametrize(
    "coingecko",
    [
        {"plan": "gold", "api_key": CANARY},
        {"plan": "gold", "api_key": f"{CANARY}\n{CANARY}"},
        {"plan": "demo", "api_key": [CANARY]},
        {"plan": "demo", "api_key": {CANARY: CANARY}},
        {"plan": "demo", "api_key": {"value": CANARY}},
        {"plan": "demo", "api_key": CANARY.encode() + b"\xff"},
        {"plan": "demo", "apikey": CANARY},
        {"plan": "demo", "key": CANARY},
        {"plan": "demo", "token": CANARY},
        {"plan": "demo", "api_key": CANARY, "base_url": 5},
        f"api_key={CANARY}",
        f"{CANARY}\nplan: demo",
        [{"plan": "demo"}, {"api_key": CANARY}],
    ],
)
def test_a_refusal_never_shows_the_key(coingecko: object) -> None:
    with pytest.raises(SettingsError) as refused:
        validated({"coingecko": coingecko, "universe": {"tracked": 0}})
    error = refused.value
    assert CANARY not in str(error) + repr(error)
    assert "universe.tracked" in str(error)


def test_a_key_in_a_broken_file_or_a_wrong_name_is_not_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    in_file(f"coingecko: {{api_key: {CANARY}, plan: [}}")
    assert CANARY not in load_refusal()
    in_file("")
    monkeypatch.setenv("CRYPTO_ASSETS_COINGECKO__API_KEY__X", CANARY)
    assert CANARY not in load_refusal()


@pytest.mark.parametrize("plan", ["keyless", "unlimited"])
def test_a_plan_without_a_key_needs_none(plan: str) -> None:
    assert validated({"coingecko": {"plan": plan}}).coingecko.api_key is None


# --- the sandbox


def is_loopback(settings: Settings) -> bool:
    urls = [
        settings.coingecko.base_url,
        settings.alternative_me.base_url,
        settings.farside.base_url,
    ]
    return all(url is not None and url.startswith("http://127.0.0.1:") for url in urls)


@pytest.mark.parametrize(
    "text",
    [
        "sandbox: {}",
        "sandbox: {seed: 3, port: 9999}",
        "sandbox: {}\ncoingecko: {plan: keyless}",
        "sandbox: {}\ncoingecko: {plan: demo, api_key: x}\nfarside: {}",
        "sandbox: {}\ncoingecko: {base_url: null}",
    ],
)
def test_a_sandbox_home_never_calls_a_live_host_by_default(text: str) -> None:
    in_file(text, "data-of-sandbox")
    settings = load_settings("data-of-sandbox")
    assert settings.is_sandbox
    assert is_loopback(settings)


def test_a_sandbox_home_uses_its_port_and_the_plan_without_limits() -> None:
    in_file("sandbox: {port: 9999}")
    settings = load_settings()
    assert settings.coingecko.base_url == "http://127.0.0.1:9999/coingecko/api/v3"
    assert settings.farside.base_url == "http://127.0.0.1:9999/farside"
    assert settings.coingecko.plan == "unlimited"


def test_a_sandbox_of_its_own_host_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    in_file("sandbox: {}")
    monkeypatch.setenv("CRYPTO_ASSETS_COINGECKO__BASE_URL", "http://127.0.0.1:7/coingecko/api/v3")
    assert load_settings().coingecko.base_url == "http://127.0.0.1:7/coingecko/api/v3"


@pytest.mark.parametrize(
    ("clock", "utc"),
    [
        ("2026-01-01 12:00:00", "2026-01-01T12:00:00"),
        ("2026-01-01T12:00:00Z", "2026-01-01T12:00:00"),
        ("'2026-01-01T12:00:00+02:00'", "2026-01-01T10:00:00"),
        ("2024-02-29", "2024-02-29T00:00:00"),
    ],
)
def test_the_clock_of_a_sandbox_is_naive_utc(clock: str, utc: str) -> None:
    in_file(f"sandbox: {{clock: {clock}}}")
    sandbox = load_settings().sandbox
    assert sandbox is not None
    assert sandbox.clock == datetime.fromisoformat(utc)


# --- anything at all

SECTIONS = [
    *(name for name in Settings.model_fields if name not in ("home", "sandbox")),
    "sandbox",
]
MODELS = {
    name: SandboxSettings if name == "sandbox" else Settings.model_fields[name].annotation
    for name in SECTIONS
}
SAYING_TEXTS = ["[[5, 9]]", "[", "http://x", "* * * * *", "demo", "0001-01-01T00:00:00+10:00"]
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.datetimes(timezones=st.none() | st.just(UTC)),
    st.sampled_from(SAYING_TEXTS),
)
values = st.sampled_from(SAYING_TEXTS) | st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=2)
    ),
    max_leaves=4,
)


def section(name: str) -> st.SearchStrategy[object]:
    fields = st.sampled_from([*getattr(MODELS[name], "model_fields", ()), "unknown"])
    some = st.dictionaries(fields, values, min_size=1, max_size=4)
    return some | some | values


trees = st.fixed_dictionaries(
    {}, optional={name: section(name) for name in SECTIONS} | {"home": values}
)


@hypothesis_settings(deadline=None, max_examples=200)
@given(trees)
def test_any_tree_is_settings_or_a_refusal(tree: dict[str, Any]) -> None:
    with contextlib.suppress(SettingsError):
        assert isinstance(validated(tree), Settings)


@hypothesis_settings(deadline=None, max_examples=100)
@given(trees.map(yaml.safe_dump) | values.map(yaml.safe_dump) | st.text(max_size=40))
def test_any_file_is_settings_or_a_refusal(text: str) -> None:
    Path("crypto_assets.yaml").write_bytes(text.encode())
    with contextlib.suppress(SettingsError):
        assert isinstance(load_settings(), Settings)
