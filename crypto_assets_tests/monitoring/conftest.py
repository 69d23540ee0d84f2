"""Conditions and channels that tests of alerts share."""

from collections.abc import Iterator

import pytest

from crypto_assets_tests.webhook import Webhook, open_webhook


@pytest.fixture
def hook() -> Iterator[Webhook]:
    with open_webhook() as opened:
        yield opened


@pytest.fixture
def other_hook() -> Iterator[Webhook]:
    with open_webhook() as opened:
        yield opened
