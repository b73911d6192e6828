"""What tests of dask share."""

from collections.abc import Iterator

import pytest
from dasks import scheduler_in, worker


@pytest.fixture(scope="session")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a scheduler with a worker of one thread."""
    folder = tmp_path_factory.mktemp("farm")
    (folder / "pipeline").mkdir()  # without __init__.py it hides nothing
    with scheduler_in(folder) as address, worker(address, folder):
        yield address
