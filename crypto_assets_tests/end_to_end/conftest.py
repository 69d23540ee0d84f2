"""What the tests from end to end share."""

from collections.abc import Generator
from typing import Any

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: "pytest.CallInfo[Any]"
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep what a browser showed when its test failed, and tell where."""
    report = yield
    known: dict[str, Any] = getattr(item, "funcargs", {})
    if report.failed and call.when == "call" and "person" in known:
        folder = item.config._tmp_path_factory.mktemp("browser")  # type: ignore[attr-defined]
        report.sections.append(("What the browser showed", known["person"].keep(folder)))
    return report
