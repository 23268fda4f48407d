"""Fixtures that every test may use: a folder for outputs, and the real data sets where they are."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from workbench.data.card import read_card
from workbench.data.locate import MissingDataError, find_data_root

# The browser's fixtures have a file of their own; two files named conftest would be one module to the type checker.
pytest_plugins = ("pages",)

PHOTOGRAPH_SETS = ("grocery_store", "nyala_market1501")


@pytest.fixture(scope="session", autouse=True)
def outputs_elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder that stands for `outputs/` in this session, so that no test writes into the checkout."""
    folder = tmp_path_factory.mktemp("outputs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_OUTPUTS", str(folder))
        yield folder


@pytest.fixture(scope="session")
def grocery_store_root() -> Path:
    """The folder of grocery_store; the test is skipped, and says so, where the set is absent."""
    return _photographs("grocery_store")


@pytest.fixture(scope="session")
def nyala_root() -> Path:
    """The folder of nyala_market1501; the test is skipped, and says so, where the set is absent."""
    return _photographs("nyala_market1501")


def pytest_report_header() -> list[str]:
    """Where the real photographs are, above the tests, so that nobody takes a skipped test for a passed one."""
    lines = []
    for name in PHOTOGRAPH_SETS:
        try:
            lines.append(f"photographs: {name} in {find_data_root(read_card(name))}")
        except MissingDataError:
            lines.append(f"photographs: {name} is ABSENT, its tests are NOT RUN; set WORKBENCH_DATA")
    return lines


def _photographs(name: str) -> Path:
    try:
        return find_data_root(read_card(name))
    except MissingDataError as error:
        tried = str(error).partition("\nWhere it comes from")[0]
        pytest.skip(f"PHOTOGRAPHS NOT RUN: {tried}")
