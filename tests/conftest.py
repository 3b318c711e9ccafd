"""What all tests share; `setup.cfg` puts the repository's and the bundle's root on the import path."""

import logging
import os
from pathlib import Path

import pytest

# Set before torch is loaded, and inherited by the commands that tests start: many threads slow small tensors down.
os.environ.setdefault("OMP_NUM_THREADS", str(min(4, os.cpu_count() or 1)))

import ignite.distributed as idist  # noqa: E402
import torch  # noqa: E402

THREADS = torch.get_num_threads()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Some tests segment with one thread, in this process; others compare its weights with a command's, bit by bit."""
    torch.set_num_threads(THREADS)
    idist.sync()  # a process group that a test has ended is none any more
    for package in ("scripts", "ravnet_bundle.scripts"):  # a command that ran in this process has set a level
        logging.getLogger(package).setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real CTs: `$RAVNET_DATA`, or `../shared/data` beside the repository; without it the test skips."""
    folder = Path(os.environ.get("RAVNET_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real CTs in {folder}: set RAVNET_DATA to their folder")
    return folder
