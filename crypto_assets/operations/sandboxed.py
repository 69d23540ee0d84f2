"""The sandbox a home may need: started in a process of its own, ended with its user."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from crypto_assets.operations.errors import OperationError
from crypto_assets.settings import (
    Settings,
    environment_names,
    load_settings,
    sandbox_base_urls,
)


@contextmanager
def with_providers(settings: Settings) -> Iterator[Settings]:
    """Yield the settings to work with; in a sandbox home, while its sandbox runs.

    Processes started meanwhile find the sandbox through the environment. A home that says where
    each provider is needs no sandbox of its own.
    """
    if settings.sandbox is None or _names_all_providers(settings, settings.sandbox.port):
        yield settings
        return
    with _process(settings) as url:
        before = dict(os.environ)
        os.environ.update(environment_names(sandbox_base_urls(url)))
        os.environ.pop("CRYPTO_ASSETS_COINGECKO__API_KEY", None)
        try:
            yield load_settings(settings.home)
        finally:
            os.environ.clear()
            os.environ.update(before)


def _names_all_providers(settings: Settings, port: int) -> bool:
    own = sandbox_base_urls(f"http://127.0.0.1:{port}")
    return all(
        getattr(settings, section).base_url != of_section["base_url"]
        for section, of_section in own.items()
    )


@contextmanager
def _process(settings: Settings) -> Iterator[str]:
    """Start the sandbox and yield its URL; it ends when our end of its standard input closes."""
    if settings.sandbox is None:
        raise ValueError("not a sandbox home")
    command = [sys.executable, "-m", "crypto_assets", "sandbox", "--port", "0", "--attached"]
    command += ["--seed", str(settings.sandbox.seed)]
    if settings.sandbox.clock:
        command += ["--clock", settings.sandbox.clock.isoformat()]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        if process.stdin is None or process.stdout is None:
            raise OperationError("the sandbox could not be started: no pipes")
        try:
            url = process.stdout.readline().strip()
            if not url.startswith("http"):
                raise OperationError(
                    "the sandbox could not be started: run 'crypto-assets sandbox' to see why"
                )
            yield url
        finally:
            process.stdin.close()
            process.wait()
