"""Which home a notebook looks at, though it runs in a folder of its own."""

from pathlib import Path

import pytest

from crypto_assets import notebooks
from crypto_assets.notebooks import find_home
from crypto_assets.settings import SettingsError
from crypto_assets.warehouse.publishing import LINK_NAME


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone; the working directory is that of its notebooks."""
    folder = tmp_path / "clone"
    here = folder / "crypto_assets" / "notebooks"
    here.mkdir(parents=True)
    (folder / "pyproject.toml").touch()
    monkeypatch.setattr(notebooks, "_CLONE", folder)
    monkeypatch.chdir(here)
    return folder


def published(home: Path) -> Path:
    home.mkdir(parents=True, exist_ok=True)
    (home / LINK_NAME).touch()
    return home


def test_the_demo_of_the_clone_is_found_where_nothing_was_chosen(clone: Path) -> None:
    demo = published(clone / "data" / "demo")
    assert find_home() == demo


def test_a_live_home_comes_before_the_demo(clone: Path) -> None:
    published(clone / "data" / "demo")
    live = published(clone / "data")
    assert find_home() == live


def test_the_settings_of_the_clone_name_the_home(clone: Path) -> None:
    published(clone / "data")
    chosen = published(clone / "elsewhere")
    (clone / "crypto_assets.yaml").write_text("home: elsewhere\n")
    assert find_home() == chosen
    other = published(clone / "other")
    (clone / ".env").write_text("CRYPTO_ASSETS_HOME=other\n")
    assert find_home() == other


@pytest.mark.parametrize("is_absolute", [True, False])
def test_the_environment_names_the_home(
    clone: Path, monkeypatch: pytest.MonkeyPatch, is_absolute: bool
) -> None:
    published(clone / "data" / "demo")
    chosen = published(clone / "mine")
    monkeypatch.setenv("CRYPTO_ASSETS_HOME", str(chosen) if is_absolute else "mine")
    assert find_home() == chosen


def test_a_home_that_was_chosen_is_never_replaced_by_the_demo(
    clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(clone / "data" / "demo")
    monkeypatch.setenv("CRYPTO_ASSETS_HOME", "mine")
    assert find_home() == clone / "mine"


def test_a_given_home_wins_and_counts_from_the_working_directory_then_the_clone(
    clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRYPTO_ASSETS_HOME", str(published(clone / "mine")))
    of_clone = published(clone / "data" / "demo")
    assert find_home("data/demo") == of_clone
    assert find_home(of_clone) == of_clone
    near = published(Path.cwd() / "data" / "demo")
    assert find_home("data/demo") == near


def test_without_any_home_it_is_the_place_where_a_demo_would_be(clone: Path) -> None:
    assert find_home() == clone / "data" / "demo"


def test_beside_no_clone_only_the_working_directory_counts(clone: Path) -> None:
    published(clone / "data" / "demo")
    (clone / "pyproject.toml").unlink()
    assert find_home() == Path.cwd() / "data" / "demo"


def test_a_misspelt_setting_is_told(clone: Path) -> None:
    (clone / "crypto_assets.yaml").write_text("hoem: elsewhere\n")
    with pytest.raises(SettingsError, match="did you mean 'home'"):
        find_home()
