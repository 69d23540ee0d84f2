"""Which coins there are: ids, symbols, names, lives, and the constants each price path needs.

Facts and inventions about coins belong here; prices on a date do not (market.py).
"""

import math
import random
from dataclasses import dataclass, field, replace
from datetime import date, timedelta

FIRST_DAY = date(2014, 1, 1)


@dataclass(frozen=True)
class Coin:
    """One coin of the model. Prices in US$, supplies in coins, volatility per square-root day."""

    coin_id: str
    symbol: str
    name: str
    base_price: float
    base_market_cap: float
    listed_on: date
    died_on: date | None = None
    renamed_to: str | None = None
    path_of: str | None = None  # shares the price path, supply and tie of that coin
    volatility: float = 0.04
    beta: float = 1.0
    is_stable: bool = False
    is_whole_dollar: bool = False  # priced in whole dollars from 1,000 up
    is_priced: bool = True
    has_market_cap: bool = True
    has_rank: bool = True
    has_supply: bool = True
    total_supply_factor: float | None = 1.1  # total / circulating supply; None: not known
    is_ragged: bool = False  # its chart arrays differ in length
    missing_days: tuple[date, ...] = ()
    platforms: dict[str, str] = field(default_factory=dict)


def catalogue(seed: int, count: int) -> list[Coin]:
    """The first `count` coins; a shorter catalogue is a prefix of a longer one."""
    coins = [*_familiar(), *_special()]
    taken = {coin.coin_id for coin in coins}
    chance = random.Random(f"coins/{seed}")
    while len(coins) < count:
        coin = _synthetic(chance, len(coins))
        if coin.coin_id in taken and chance.random() < 0.3:
            # Another coin of the same name: the real list has dozens.
            coin = replace(coin, coin_id=f"{coin.coin_id}-{len(coins)}")
        if coin.coin_id not in taken:
            taken.add(coin.coin_id)
            coins.append(coin)
    return coins[:count]


def _familiar() -> list[Coin]:
    rows: list[tuple[str, str, str, float, float, tuple[int, int, int], float]] = [
        ("bitcoin", "btc", "Bitcoin", 88_000, 1.75e12, (2014, 1, 1), 0.026),
        ("ethereum", "eth", "Ethereum", 3_100, 3.7e11, (2015, 8, 7), 0.034),
        ("tether", "usdt", "Tether", 1.0, 1.6e11, (2015, 2, 25), 0),
        ("ripple", "xrp", "XRP", 1.9, 1.1e11, (2014, 1, 1), 0.04),
        ("binancecoin", "bnb", "BNB", 720, 1.0e11, (2017, 9, 16), 0.032),
        ("solana", "sol", "Solana", 150, 8.2e10, (2020, 4, 10), 0.045),
        ("usd-coin", "usdc", "USDC", 1.0, 6.4e10, (2018, 10, 5), 0),
        ("dogecoin", "doge", "Dogecoin", 0.18, 2.7e10, (2014, 1, 1), 0.05),
        ("cardano", "ada", "Cardano", 0.62, 2.2e10, (2017, 10, 18), 0.042),
        ("tron", "trx", "TRON", 0.26, 2.4e10, (2017, 11, 9), 0.03),
        ("staked-ether", "steth", "Lido Staked Ether", 3_098, 2.6e10, (2020, 12, 23), 0.034),
        ("wrapped-bitcoin", "wbtc", "Wrapped Bitcoin", 87_900, 1.1e10, (2019, 1, 30), 0.026),
        ("chainlink", "link", "Chainlink", 16, 1.05e10, (2017, 11, 9), 0.043),
        ("hyperliquid", "hype", "Hyperliquid", 35, 1.15e10, (2024, 11, 29), 0.055),
        ("stellar", "xlm", "Stellar", 0.27, 8.6e9, (2014, 8, 5), 0.042),
        ("bitcoin-cash", "bch", "Bitcoin Cash", 480, 9.5e9, (2017, 8, 2), 0.04),
        ("avalanche-2", "avax", "Avalanche", 21, 8.9e9, (2020, 9, 22), 0.048),
        ("litecoin", "ltc", "Litecoin", 92, 7.0e9, (2014, 1, 1), 0.038),
        ("sui", "sui", "Sui", 2.4, 8.4e9, (2023, 5, 3), 0.055),
        ("hedera-hashgraph", "hbar", "Hedera", 0.16, 6.8e9, (2019, 9, 17), 0.045),
        ("shiba-inu", "shib", "Shiba Inu", 1.1e-05, 6.4e9, (2020, 8, 1), 0.05),
        ("the-open-network", "ton", "Toncoin", 2.6, 6.6e9, (2021, 8, 27), 0.04),
        ("polkadot", "dot", "Polkadot", 3.6, 5.7e9, (2020, 8, 19), 0.043),
        ("monero", "xmr", "Monero", 290, 5.3e9, (2014, 5, 21), 0.035),
        ("dai", "dai", "Dai", 1.0, 5.2e9, (2019, 11, 19), 0),
        ("uniswap", "uni", "Uniswap", 7.1, 4.4e9, (2020, 9, 17), 0.047),
        ("pepe", "pepe", "Pepe", 7.5e-06, 3.1e9, (2023, 4, 17), 0.065),
        ("aave", "aave", "Aave", 210, 3.2e9, (2020, 10, 2), 0.047),
        ("near", "near", "NEAR Protocol", 2.2, 2.7e9, (2020, 10, 14), 0.05),
        ("aptos", "apt", "Aptos", 3.4, 2.3e9, (2022, 10, 19), 0.05),
        ("internet-computer", "icp", "Internet Computer", 4.9, 2.6e9, (2021, 5, 10), 0.047),
        ("ethereum-classic", "etc", "Ethereum Classic", 17, 2.6e9, (2016, 7, 24), 0.04),
        ("cosmos", "atom", "Cosmos Hub", 3.9, 1.8e9, (2019, 3, 14), 0.043),
        ("arbitrum", "arb", "Arbitrum", 0.32, 1.7e9, (2023, 3, 23), 0.05),
        ("filecoin", "fil", "Filecoin", 2.2, 1.5e9, (2020, 10, 15), 0.045),
        ("pax-gold", "paxg", "PAX Gold", 3_900, 1.2e9, (2019, 9, 27), 0.008),
    ]
    gaps = {"bitcoin": (date(2015, 1, 27),), "ethereum": (date(2017, 8, 9), date(2017, 8, 10))}
    return [
        Coin(
            coin_id=coin_id,
            symbol=symbol,
            name=name,
            base_price=price,
            base_market_cap=cap,
            listed_on=date(*listed),
            volatility=volatility or 0.0008,
            beta=0.1 if coin_id == "pax-gold" else 1.0,
            is_stable=volatility == 0,
            is_whole_dollar=coin_id in {"bitcoin", "wrapped-bitcoin", "pax-gold"},
            # Some wallets' coins count twice: the real API shows more in circulation than exist.
            total_supply_factor={"bitcoin": 1.0, "staked-ether": 0.97}.get(coin_id, 1.1),
            missing_days=gaps.get(coin_id, ()),
        )
        for coin_id, symbol, name, price, cap, listed, volatility in rows
    ]


def _special() -> list[Coin]:
    day = date
    return [
        # Renamed: the old id dies on the day of the change and answers with empty arrays then.
        Coin("matic-network", "matic", "Polygon", 0.4, 3.4e9, day(2019, 4, 26),
             died_on=day(2024, 9, 4), renamed_to="polygon-ecosystem-token"),
        Coin("polygon-ecosystem-token", "pol", "POL (ex-MATIC)", 0.4, 3.4e9, day(2023, 10, 25),
             path_of="matic-network"),
        Coin("lumen-yard", "lyd", "Lumen Yard", 1.7, 2.2e9, day(2021, 3, 2),
             died_on=day(2026, 2, 1), renamed_to="lumen-yard-2"),
        Coin("lumen-yard-2", "lyd", "Lumen Yard", 1.7, 2.2e9, day(2026, 2, 1),
             path_of="lumen-yard"),
        # Lives that end or begin among the large.
        Coin("luna-collapsed", "lunac", "Luna Collapsed", 60, 2.1e10, day(2019, 5, 8),
             died_on=day(2022, 5, 28), volatility=0.08),
        Coin("ftx-style-token", "fst", "Exchange Gone", 24, 3.2e9, day(2019, 7, 31),
             died_on=day(2022, 11, 20), volatility=0.07),
        Coin("sunset-protocol", "sunset", "Sunset Protocol", 3.2, 3.0e9, day(2020, 6, 1),
             died_on=day(2026, 6, 15)),
        Coin("fading-coin", "fade", "Fading Coin", 0.02, 4.0e7, day(2018, 3, 1),
             died_on=day(2026, 8, 1)),
        Coin("newly-minted", "mint", "Newly Minted", 8.0, 5.0e9, day(2026, 8, 3), volatility=0.07),
        # Two coins on one path with one supply: equal caps on every day.
        Coin("twin-alpha", "twa", "Twin Alpha", 12.5, 2.0e9, day(2019, 1, 1)),
        Coin("twin-beta", "twb", "Twin Beta", 12.5, 2.0e9, day(2019, 1, 1), path_of="twin-alpha"),
        # Ids, symbols and names that break careless code.
        Coin("some token", "some", "Some Token", 0.9, 8.0e9, day(2021, 1, 5)),
        Coin("[old]-thing", "btc", "Bitcoin", 0.004, 1.5e7, day(2017, 5, 5)),
        Coin("no-symbol", "", "No Symbol", 0.7, 6.0e7, day(2020, 2, 29)),
        Coin("a/b", "a/b", "A over B", 5.5, 3.0e7, day(2021, 9, 9)),
        Coin("what?x=1", "wx", "What? & More", 0.3, 2.5e7, day(2021, 9, 10)),
        Coin("50%-off", "50%", "Fifty % Off", 0.5, 2.4e7, day(2021, 9, 11)),
        Coin("bobby-tables", "drop", "Robert'); DROP TABLE t;--", 2.0, 9.0e7, day(2022, 4, 1)),
        Coin("formula-one", "=1+1", "=cmd|' /C calc'!A0", 1.4, 5.0e7, day(2022, 4, 2)),
        Coin("right-to-left", "rtl", "\u202eedoc esrever\u202c", 0.09, 2.0e7, day(2022, 4, 3)),
        Coin("script-kiddie", "<b>", "<script>alert('coin')</script>", 0.03, 1.9e7,
             day(2022, 4, 4)),
        Coin("emoji-coin", "\U0001f680", "\U0001f680\U0001f680 to ü Mond", 0.0002, 1.8e7,
             day(2022, 4, 5)),
        Coin("very-long-name", "long", "Long " * 200 + "Name", 0.6, 1.7e7, day(2022, 4, 6)),
        # Numbers the provider does not have.
        Coin("capless", "nocap", "Capless", 1.1, 4.0e7, day(2021, 6, 1), has_market_cap=False,
             has_supply=False, total_supply_factor=None),
        Coin("unranked", "unrk", "Unranked", 14.0, 7.0e8, day(2021, 6, 2), has_rank=False),
        Coin("supply-unknown", "sunk", "Supply Unknown", 0.2, 5.0e8, day(2021, 6, 3),
             has_supply=False, total_supply_factor=None),
        Coin("never-traded", "nvr", "Never Traded", 1.0, 1.0e6, day(2022, 1, 1), is_priced=False,
             has_market_cap=False, total_supply_factor=None),
        Coin("ragged-chart", "rag", "Ragged Chart", 2.7, 4.0e6, day(2019, 6, 1), is_ragged=True),
        Coin("holey-chart", "hole", "Holey Chart", 6.1, 3.0e6, day(2019, 6, 2),
             missing_days=(day(2020, 2, 29), day(2023, 12, 31), day(2026, 6, 10))),
        # Above 1,000 dollars and small: integers far down the list of markets.
        Coin("tiny-treasure", "tres", "Tiny Treasure", 24_000, 3.5e7, day(2019, 8, 1),
             is_whole_dollar=True),
        Coin("euro-token", "eurt", "Euro Token", 1.12, 2.0e8, day(2018, 7, 1), volatility=0.0012,
             is_stable=True),
    ]  # fmt: skip


_STARTS = (
    *("al", "be", "cor", "da", "el", "fi", "gra", "hel", "io", "ju", "ka", "lu", "mo", "ne"),
    *("or", "pra", "qui", "ri", "sol", "ta", "ul", "ve", "wa", "xe", "yo", "za"),
)
_MIDDLES = (
    *("ba", "de", "ga", "li", "mi", "no", "pa", "ra"),
    *("se", "ti", "va", "ro", "lo", "ni", "ka", "du"),
)
_ENDS = (
    *("n", "ra", "x", "on", "us", "ia", "o", "ium"),
    *("ex", "is", "ar", "a", "eth", "ix", "um", "os"),
)
_KINDS = ["", "", "", "", " Coin", " Token", " Protocol", " Network", " Finance", " DAO", " Swap"]
_CHAINS = ["ethereum", "solana", "binance-smart-chain", "base", "arbitrum-one", "tron"]


def _synthetic(chance: random.Random, index: int) -> Coin:
    word = chance.choice(_STARTS) + chance.choice(_MIDDLES) + chance.choice(_ENDS)
    if chance.random() < 0.3:
        word += chance.choice(_MIDDLES)
    name = word.capitalize() + chance.choice(_KINDS)
    coin_id = name.lower().replace(" ", "-")
    listed_on = _listing(chance)
    market_cap = 1.2e10 / (index - 55) ** 1.15 * math.exp(chance.gauss(0, 0.5))
    return Coin(
        coin_id=coin_id,
        symbol=word[: chance.choice([3, 6, 7, 8])],
        name=name,
        base_price=10 ** chance.uniform(-6, 2.7),
        base_market_cap=max(market_cap, 2e5),
        listed_on=listed_on,
        died_on=_death(chance, listed_on),
        volatility=chance.uniform(0.03, 0.07),
        beta=chance.uniform(0.6, 1.3),
        has_market_cap=chance.random() > 0.04 or index < 400,
        has_rank=chance.random() > 0.02 or index < 400,
        total_supply_factor=chance.choice([1.0, 1.0, 1.25, 2.0, None]),
        is_ragged=chance.random() < 0.02 and index >= 400,
        platforms=_platforms(chance),
    )


def _listing(chance: random.Random) -> date:
    span = (date(2026, 6, 30) - FIRST_DAY).days
    if chance.random() < 0.02:
        return date(2026, 7, 1) + timedelta(days=chance.randrange(4 * 365))
    return FIRST_DAY + timedelta(days=int(span * chance.random() ** 0.6))


def _death(chance: random.Random, listed_on: date) -> date | None:
    if chance.random() > 0.10:
        return None
    return listed_on + timedelta(days=200 + int(3_000 * chance.random()))


def _platforms(chance: random.Random) -> dict[str, str]:
    chains = chance.sample(_CHAINS, chance.choice([0, 1, 1, 1, 2]))
    return {chain: f"0x{chance.getrandbits(160):040x}" for chain in chains}
