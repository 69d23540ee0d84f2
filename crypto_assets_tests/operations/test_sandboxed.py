from pathlib import Path

import pytest
import requests

from crypto_assets.operations.sandboxed import with_providers
from crypto_assets.settings import Settings, sandbox_base_urls, validated

ELSEWHERE = sandbox_base_urls("http://127.0.0.1:9")


def home(folder: Path, *named: str) -> Settings:
    return validated({"home": folder, "sandbox": {}, **{name: ELSEWHERE[name] for name in named}})


def test_a_sandbox_home_that_names_every_provider_starts_no_sandbox(tmp_path: Path) -> None:
    settings = home(tmp_path, *ELSEWHERE)
    with with_providers(settings) as active:
        assert active is settings


@pytest.mark.slow
def test_one_that_names_some_of_them_has_its_own_for_the_others(tmp_path: Path) -> None:
    (tmp_path / "crypto_assets.yaml").write_text("sandbox: {}\n")
    with with_providers(home(tmp_path, "coingecko", "farside")) as active:
        assert requests.get(f"{active.alternative_me.base_url}/fng/", timeout=30).ok
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{active.alternative_me.base_url}/fng/", timeout=30)
