"""One validated tree of settings: environment over `.env` over `crypto_assets.yaml` over defaults.

Here belongs what a user may choose and its validation; not what a choice means for anybody.
An environment name is `CRYPTO_ASSETS_` and the path joined by `__`, for example
`CRYPTO_ASSETS_UNIVERSE__TRACKED`.
"""

import difflib
import io
import os
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from dotenv import dotenv_values
from dotenv.parser import parse_stream
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from crypto_assets.periods import Clock, midnight

PREFIX = "CRYPTO_ASSETS_"
FILE_NAME = "crypto_assets.yaml"
DOTENV_NAME = ".env"
SANDBOX_PORT = 8765

PlanName = Literal["keyless", "demo", "basic", "analyst", "lite", "enterprise", "unlimited"]


class SettingsError(Exception):
    """Settings that can't be used: names each field, what it holds and what is allowed."""


def _url(value: str) -> str:
    if not re.fullmatch(r"https?://[^\s/]\S*", value):
        raise ValueError("must be an http:// or https:// URL without spaces")
    return value.rstrip("/")


_CRON_RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_CRON_PART = re.compile(r"(?:\*|(\d+)(?:-(\d+))?)(?:/([1-9]\d*))?")
# The longest a month can be: February in a leap year.
_DAYS_OF_MONTH = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def _cron(value: str) -> str:
    fields = value.split()
    if len(fields) == len(_CRON_RANGES):
        values = [_cron_values(*pair) for pair in zip(fields, _CRON_RANGES, strict=True)]
        if all(values):
            days, months, on_weekdays = values[2], values[3], fields[4] != "*"
            if on_weekdays or any(min(days) <= _DAYS_OF_MONTH[month - 1] for month in months):
                return value
            raise ValueError("never happens: no such day in these months")
    raise ValueError("must be a cron expression of five fields in UTC, e.g. '0 * * * *'")


def ticks(cron: str, day: date) -> list[datetime]:
    """Return when a cron expression (UTC) fires on one day, ascending."""
    minutes, hours, days, months, weekdays = (
        _cron_values(*pair) for pair in zip(cron.split(), _CRON_RANGES, strict=True)
    )
    day_field, weekday_field = cron.split()[2], cron.split()[4]
    on_day = day.day in days
    # Sunday is 0 and 7.
    on_weekday = bool({day.isoweekday() % 7, day.isoweekday()} & weekdays)
    # Where both are restricted, either will do.
    either = not day_field.startswith("*") and not weekday_field.startswith("*")
    fires = (on_day or on_weekday) if either else (on_day and on_weekday)
    if day.month not in months or not fires:
        return []
    return [
        midnight(day) + timedelta(hours=h, minutes=m)
        for h in sorted(hours)
        for m in sorted(minutes)
    ]


def _cron_values(field: str, allowed: tuple[int, int]) -> set[int]:
    """Return the numbers a field stands for; none where it is not valid."""
    found: set[int] = set()
    for part in map(_CRON_PART.fullmatch, field.split(",")):
        if part is None:
            return set()
        first, last, step = (int(n) if n else None for n in part.groups())
        start = allowed[0] if first is None else first
        end = last if last is not None else allowed[1] if first is None or step else start
        if not allowed[0] <= start <= end <= allowed[1]:
            return set()
        found |= set(range(start, end + 1, step or 1))
    return found


def _naive_utc(value: datetime) -> datetime:
    if value.tzinfo is not None:
        try:
            value = value.astimezone(UTC).replace(tzinfo=None)
        except OverflowError:
            raise ValueError("must be a time between the years 1 and 9999") from None
    return value


def _listed(value: Any) -> Any:
    """Accept `a, b` or `[[12, 26]]` as text, since the environment holds nothing else."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        try:
            return yaml.safe_load(value)
        except Exception:  # PyYAML raises more than its own errors
            raise ValueError("must be a list, e.g. 'a, b' or '[[12, 26]]'") from None
    return [part.strip() for part in value.split(",") if part.strip()]


def _no_truth(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be an integer")
    return value


def _listed_urls(value: Any) -> Any:
    """Accept `a, b` or `a b` as text; a comma without a space belongs to a URL."""
    if not isinstance(value, str) or value.lstrip().startswith("["):
        return _listed(value)
    return re.split(r",?\s+", value.strip()) if value.strip() else []


def _channel(value: SecretStr) -> SecretStr:
    # A URL often is the secret itself, so that what is wrong with it can't be shown.
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*://\S+", value.get_secret_value()):
        raise ValueError("must be an apprise URL, e.g. 'slack://TokenA/TokenB/TokenC'")
    return value


def _allows(what: str) -> Any:
    """Say in the schema what a validator allows, for the table of settings."""
    return Field(json_schema_extra={"allowed": what})


Number = Annotated[int, BeforeValidator(_no_truth)]
Url = Annotated[str, AfterValidator(_url), _allows("http:// or https:// URL")]
Cron = Annotated[str, AfterValidator(_cron), _allows("cron expression of five fields, UTC")]
UtcDatetime = Annotated[datetime, AfterValidator(_naive_utc), _allows("date and time, UTC")]
SecretUrls = Annotated[
    list[Annotated[SecretStr, AfterValidator(_channel)]],
    BeforeValidator(_listed_urls),
    _allows("apprise URLs"),
]
CoinIds = Annotated[
    list[Annotated[str, Field(min_length=1)]],
    BeforeValidator(_listed),
    _allows("CoinGecko ids"),
]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CoinGeckoSettings(_Section):
    """How to reach CoinGecko."""

    plan: PlanName = Field(
        "keyless",
        description="The plan of the key; keyless needs none, unlimited is the sandbox's.",
    )
    api_key: SecretStr | None = Field(
        None, description="The key of that plan; put it into the environment or `.env`."
    )
    base_url: Url | None = Field(
        None, description="Where CoinGecko is; by default the host of the plan."
    )
    calls_per_minute: Number | None = Field(
        None,
        ge=1,
        description="A rate limit, shared by all processes of a home; by default the plan's.",
    )
    credits_per_month: Number | None = Field(
        None, ge=1, description="Credits a month may cost; by default the plan's."
    )
    may_exceed_credits: bool = Field(
        False,
        description="Whether a run may start that needs more credits than the month has left.",
    )

    @model_validator(mode="after")
    def _plan_has_its_key(self) -> "CoinGeckoSettings":
        has_key = self.api_key is not None and self.api_key.get_secret_value() != ""
        if self.plan not in ("keyless", "unlimited") and not has_key:
            raise ValueError(
                f"the plan '{self.plan}' needs api_key: set {PREFIX}COINGECKO__API_KEY, run "
                "'crypto-assets init', or choose the plan keyless"
            )
        return self


class AlternativeMeSettings(_Section):
    """How to reach alternative.me, the source of the fear & greed index."""

    base_url: Url = Field("https://api.alternative.me", description="Where alternative.me is.")


class FarsideSettings(_Section):
    """How to reach Farside Investors, the source of ETF flows."""

    base_url: Url = Field("https://farside.co.uk", description="Where Farside Investors is.")


class UniverseSettings(_Section):
    """Which coins are tracked."""

    tracked: Number = Field(
        100, ge=1, le=5000, description="How many coins by market cap are tracked each day."
    )
    always: CoinIds = Field(
        ["bitcoin", "ethereum", "solana"],
        description="CoinGecko ids that are tracked whatever their rank.",
    )
    headline: CoinIds = Field(
        ["bitcoin", "ethereum", "solana"],
        min_length=1,
        description="Coins with hourly candles on plans that can't give them for all.",
    )


class HistorySettings(_Section):
    """Where the warehouse begins."""

    start: date = Field(
        date(2026, 1, 1),
        description="First day of every table; fixed once data is stored.",
        json_schema_extra={"allowed": "2013-04-28 to today"},
    )

    @field_validator("start")
    @classmethod
    def _within_reach(cls, value: date) -> date:
        if not date(2013, 4, 28) <= value <= datetime.now(UTC).date():
            raise ValueError("must be between 2013-04-28 (CoinGecko's first day) and today")
        return value


class SignalSettings(_Section):
    """Which signals are computed."""

    span_pairs: Annotated[list[tuple[int, int]], BeforeValidator(_listed)] = Field(
        [(12, 26), (20, 50), (50, 200)],
        min_length=1,
        description="EMA pairs, each [fast_span, slow_span] in days; a change recalculates all.",
        json_schema_extra={"allowed": "different pairs with 2 <= fast_span < slow_span"},
    )

    @field_validator("span_pairs")
    @classmethod
    def _fast_below_slow(cls, pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
        for fast, slow in pairs:
            if not 2 <= fast < slow:
                raise ValueError(f"[{fast}, {slow}]: needs 2 <= fast_span < slow_span")
        if len(set(pairs)) != len(pairs):
            raise ValueError("the same pair twice")
        return pairs


class FetchSettings(_Section):
    """How patient fetching is."""

    threads: Number = Field(
        16,
        ge=1,
        le=64,
        description="Requests in flight at most; fewer where the plan's rate needs fewer.",
    )
    timeout_seconds: float = Field(30.0, gt=0, le=3600, description="Patience for one response.")
    retry_budget_seconds: float = Field(
        60.0, ge=0, description="How many seconds a request is tried again after transient errors."
    )
    max_missing_share: float = Field(
        0.05,
        ge=0,
        le=1,
        description="A step fails when a larger share of its coins is missing; the rest is stored.",
    )


class RawSettings(_Section):
    """How much of the raw responses is kept."""

    keep_days: Number = Field(
        1100, ge=1, le=36_500, description="Raw responses older than this are pruned."
    )
    keep_megabytes: Number = Field(
        5_000, ge=1, description="Beyond this size the oldest raw responses are pruned."
    )


class PublishingSettings(_Section):
    """How often readers get a new copy."""

    large_megabytes: Number = Field(
        500, ge=0, description="From this size on a file is not published after every run."
    )
    minutes_between: float = Field(
        5.0,
        ge=0,
        le=1440,
        description="How many minutes lie at least between two publications of such a file.",
    )


class BackupSettings(_Section):
    """Where backups go."""

    url: str | None = Field(
        None,
        description="Folder or fsspec URL that backups go to; by default `backups` in the home.",
    )
    format: Literal["parquet", "csv"] = Field("parquet", description="The format of its files.")
    keep: Number = Field(7, ge=1, description="How many backups stay there; the oldest go.")


class HousekeepingSettings(_Section):
    """How long what piles up is kept."""

    keep_runs_days: Number = Field(
        60,
        ge=1,
        description="Dagster's runs older than this go with their events and logs; those behind "
        "the newest state of a partition stay.",
    )


class RestatementSettings(_Section):
    """How final values are looked at again."""

    coins_a_day: Number = Field(
        3,
        ge=0,
        le=250,
        description="Coins whose final history is fetched again each day; 0 turns it off.",
    )
    days: Number = Field(90, ge=1, le=365, description="How many days back it is fetched again.")


class FreshnessSettings(_Section):
    """When a table counts as late."""

    grace_minutes: float = Field(
        45.0,
        gt=0,
        le=1440,
        description="How many minutes after its tick a table may still be coming.",
    )


class HealingSettings(_Section):
    """How what is missing is asked for again."""

    enabled: bool = Field(
        True, description="Whether the sensor `healing` asks again for what is missing."
    )
    days_a_run: Number = Field(30, ge=1, le=366, description="How many days one such run covers.")
    tries: Number = Field(
        10,
        ge=1,
        le=50,
        description="How often a day is asked for before it is given up and left to `backfill`.",
    )


class AlertSettings(_Section):
    """Who is told when something is wrong."""

    urls: SecretUrls = Field(
        [],
        description="Where alerts go, an apprise URL for each channel (Slack, e-mail, Telegram, "
        "webhook…); they are secrets, so put them into the environment or `.env`.",
    )
    warnings: bool = Field(
        False,
        description="Whether failed WARN checks are told at once, not only in the report.",
    )
    daily_report: bool = Field(
        True, description="Whether the report of the day goes to the channels too."
    )
    ui_url: Url = Field(
        "http://127.0.0.1:3000", description="Where the Dagster UI is, for links in alerts."
    )


class ScheduleSettings(_Section):
    """When things run (cron expressions, UTC)."""

    market_refresh: Cron = Field(
        "0 * * * *",
        description="Caps, ranks and signals of the running day; at midnight the day's close.",
    )
    hourly_candles: Cron = Field("30 * * * *", description="Hourly candles of the running day.")
    fear_greed: Cron = Field("10 0 * * *", description="The Fear & Greed index.")
    daily_close: Cron = Field(
        "0 1 * * *", description="All that became final of yesterday, daily candles among it."
    )
    etf_flows: Cron = Field("30 9 * * *", description="ETF flows of the last 20 trading days.")
    restatements: Cron = Field(
        "45 2 * * *", description="Final values of a few coins looked at again."
    )
    backup: Cron = Field("15 3 * * *", description="A backup.")
    housekeeping: Cron = Field(
        "30 3 * * *", description="What piled up in Dagster's history is cleared away."
    )
    status_report: Cron = Field("0 7 * * *", description="The report of the day.")
    enabled: bool = Field(True, description="Whether schedules and sensors are on by default.")

    def cron(self, name: str) -> str:
        """Return the cron expression of a schedule by its name here."""
        return str(getattr(self, name))


class SandboxSettings(_Section):
    """Present only in a sandbox home: the providers are stood in for on loopback."""

    seed: Number = Field(7, ge=0, description="Seed of the invented market.")
    clock: UtcDatetime | None = Field(
        None, description="Where its clock stands; by default the wall clock."
    )
    port: Number = Field(SANDBOX_PORT, ge=1, le=65535, description="Where it listens by default.")


class Settings(_Section):
    """Every setting. Made by `load_settings()`, or directly in tests."""

    home: Path = Field(Path("data"), description="Folder of the warehouse and Dagster's history.")
    coingecko: CoinGeckoSettings = Field(default_factory=CoinGeckoSettings)
    alternative_me: AlternativeMeSettings = Field(default_factory=AlternativeMeSettings)
    farside: FarsideSettings = Field(default_factory=FarsideSettings)
    universe: UniverseSettings = Field(default_factory=UniverseSettings)
    history: HistorySettings = Field(default_factory=HistorySettings)
    signals: SignalSettings = Field(default_factory=SignalSettings)
    fetch: FetchSettings = Field(default_factory=FetchSettings)
    raw: RawSettings = Field(default_factory=RawSettings)
    publishing: PublishingSettings = Field(default_factory=PublishingSettings)
    backup: BackupSettings = Field(default_factory=BackupSettings)
    housekeeping: HousekeepingSettings = Field(default_factory=HousekeepingSettings)
    restatements: RestatementSettings = Field(default_factory=RestatementSettings)
    freshness: FreshnessSettings = Field(default_factory=FreshnessSettings)
    healing: HealingSettings = Field(default_factory=HealingSettings)
    alerts: AlertSettings = Field(default_factory=AlertSettings)
    schedules: ScheduleSettings = Field(default_factory=ScheduleSettings)
    sandbox: SandboxSettings | None = Field(None, description="Marks a sandbox home.")

    @model_validator(mode="before")
    @classmethod
    def _sandbox_stays_on_loopback(cls, tree: Any) -> Any:
        """Keep a sandbox home from ever calling a live host, also when no sandbox runs."""
        if not isinstance(tree, Mapping) or tree.get("sandbox") is None:
            return tree
        sandbox = tree["sandbox"]
        port = sandbox.get("port", SANDBOX_PORT) if isinstance(sandbox, Mapping) else SANDBOX_PORT
        filled = dict(tree)
        for section, own in sandbox_base_urls(f"http://127.0.0.1:{port}").items():
            given = tree.get(section)
            if isinstance(given, Mapping):
                own = own | {name: v for name, v in given.items() if v is not None}
            if given is None or isinstance(given, Mapping):
                filled[section] = own
        return filled

    @property
    def clock(self) -> Clock:
        """The time of this home."""
        return Clock(self.sandbox.clock if self.sandbox else None)

    @property
    def is_sandbox(self) -> bool:
        """Whether this home holds sandbox data."""
        return self.sandbox is not None


# Names with our prefix that are not settings of the platform.
_OTHER_NAMES = {"RECORDINGS"}


def load_settings(
    home: Path | str | None = None, overrides: Mapping[str, Any] | None = None
) -> Settings:
    """Read the settings that are in force in the working directory.

    `home` and `overrides` (a nested mapping) win over everything else. The settings file is
    `crypto_assets.yaml` in the home if there is one, else in the working directory.
    Raises `SettingsError`.
    """
    named = _merged(_dotenv_tree(Path(DOTENV_NAME)), _environment_tree(os.environ))
    local_file = file_tree(Path(FILE_NAME))
    wanted = home or named.get("home") or local_file.get("home") or "data"
    if not isinstance(wanted, (str, Path)):
        raise SettingsError(f"setting 'home' is {str(wanted)[:80]!r}: must be a folder")
    chosen_home = Path(wanted).absolute()
    in_home = chosen_home / FILE_NAME
    from_file = file_tree(in_home) if in_home.exists() else local_file
    # What a demo's home is made of must not depend on who looks at it.
    is_sandbox = from_file.get("sandbox") is not None
    layers = (named, from_file) if is_sandbox else (from_file, named)
    tree = _merged(_merged(*layers), overrides or {}) | {"home": chosen_home}
    return validated(tree)


def in_force(file: Mapping[str, Any], dotenv: Mapping[str, str | None]) -> Settings:
    """Return the settings of a file's tree under those of the environment and of `.env`.

    Raises `SettingsError`.
    """
    return validated(_merged(file, _environment_tree({**dotenv, **os.environ})))


def names_that_win(chosen: Mapping[str, Any], dotenv: Mapping[str, str | None]) -> list[str]:
    """Return the names in the environment or `.env` that say anything else of what a file chooses.

    `chosen` is the nested mapping of the file, `dotenv` what `.env` holds.
    """
    names = {**dotenv, **os.environ}
    plain = validated(chosen)
    found = []
    for name in sorted(name for name in names if name.startswith(PREFIX)):
        alone = _environment_tree({name: names[name]})
        if _chosen_by(alone, chosen) and validated(_merged(chosen, alone)) != plain:
            found.append(name)
    return found


def _chosen_by(alone: Mapping[str, Any], chosen: Mapping[str, Any]) -> bool:
    """Tell whether the one setting of `alone` is among those chosen."""
    ((key, value),) = alone.items() if alone else (("", None),)
    if isinstance(value, Mapping) and isinstance(chosen.get(key), Mapping):
        return _chosen_by(value, chosen[key])
    return key in chosen


def validated(tree: Mapping[str, Any]) -> Settings:
    """Validate a nested mapping. Raises `SettingsError` that names every field at fault."""
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise SettingsError(
            "; ".join(_explained(dict(fault)) for fault in error.errors(include_url=False))
        ) from None


def sandbox_base_urls(url: str) -> dict[str, Any]:
    """Return the settings that point every provider at a sandbox listening at `url`."""
    return {
        "coingecko": {"base_url": f"{url}/coingecko/api/v3", "plan": "unlimited"},
        "alternative_me": {"base_url": f"{url}/alternative_me"},
        "farside": {"base_url": f"{url}/farside"},
    }


def environment_names(tree: Mapping[str, Any], prefix: str = PREFIX) -> dict[str, str]:
    """Return a nested mapping of settings as environment variables."""
    names: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            names |= environment_names(value, f"{prefix}{key.upper()}__")
        else:
            names[f"{prefix}{key.upper()}"] = str(value)
    return names


def _environment_tree(environment: Mapping[str, str | None]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, value in environment.items():
        if not name.startswith(PREFIX) or value is None or name[len(PREFIX) :] in _OTHER_NAMES:
            continue
        path = name[len(PREFIX) :].lower().split("__")
        branch: Any = value
        for key in reversed(path):
            branch = {key: branch}
        tree = _merged(tree, branch)
    return tree


def _dotenv_tree(path: Path) -> dict[str, Any]:
    try:
        # A folder of that name is an environment of somebody's, no file of ours.
        if not path.exists() or path.is_dir():
            return {}
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise SettingsError(f"{path} is not text in UTF-8: correct or remove it") from None
    except OSError as error:
        raise _unreadable(path, error) from None
    for binding in parse_stream(io.StringIO(text)):
        # Others' lines may be in others' syntax.
        if binding.error and PREFIX in binding.original.string:
            line = text.count("\n", 0, text.index(binding.original.string.strip())) + 1
            raise SettingsError(f"{path} can't be understood at line {line}: write NAME=value")
    return _environment_tree(dotenv_values(stream=io.StringIO(text)))


def _unreadable(path: Path, error: OSError) -> SettingsError:
    return SettingsError(f"can't read {path} ({error.strerror}): make it a readable file")


def file_tree(path: Path) -> dict[str, Any]:
    """Return what a settings file holds, not validated; nothing where there is none."""
    try:
        if not path.exists():
            return {}
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _unreadable(path, error) from None
    except Exception as error:  # PyYAML raises more than its own errors
        where = getattr(error, "problem_mark", None)
        place = f" (line {where.line + 1})" if where else ""
        raise SettingsError(f"{path} is not valid YAML{place}: correct or remove it") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise SettingsError(f"{path} must hold settings by name, e.g. 'universe: {{tracked: 50}}'")
    return tree


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        both = isinstance(value, Mapping) and isinstance(under, Mapping)
        merged[key] = _merged(under, value) if both else value  # type: ignore[arg-type]
    return merged


_WITH_SECRETS = (["coingecko"], ["alerts"])


def _explained(fault: dict[str, Any]) -> str:
    path = [str(part) for part in fault["loc"]]
    name = ".".join(path)
    if fault["type"] == "extra_forbidden":
        allowed = _names_allowed(path[:-1])
        close = difflib.get_close_matches(path[-1], allowed, n=1)
        hint = f"did you mean '{close[0]}'? " if close else ""
        return f"there is no setting '{name}': {hint}allowed here: {', '.join(allowed)}"
    # A section that holds secrets is never repeated, whatever is wrong with it.
    is_secret = "key" in name or path[:2] == ["alerts", "urls"] or path in _WITH_SECRETS
    shown = "" if is_secret else _held(fault)
    if fault["type"] in ("model_type", "model_attributes_type"):
        return f"'{name}'{shown} must hold settings by name: {', '.join(_names_allowed(path))}"
    return f"setting '{name}'{shown or ':'} {fault['msg'].removeprefix('Value error, ')}"


def _held(fault: dict[str, Any]) -> str:
    value = fault["input"]
    return "" if isinstance(value, Mapping) else f" is {str(value)[:80]!r}:"


def _names_allowed(path: list[str]) -> list[str]:
    model: type[BaseModel] = Settings
    for key in path:
        annotation = model.model_fields[key].annotation
        options = [annotation, *get_args(annotation)]
        model = next(o for o in options if isinstance(o, type) and issubclass(o, BaseModel))
    return list(model.model_fields)
