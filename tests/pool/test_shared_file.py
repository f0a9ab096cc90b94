"""Files in memory that processes share."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from sentence_embedder.pool.shared_file import SharedFile

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="open files are handed to other processes")


@pytest.fixture
def file() -> Iterator[SharedFile]:
    """An empty one."""
    file = SharedFile.create("test")
    assert file is not None
    yield file
    file.close()


@pytest.mark.parametrize("shape", [(3, 4), (0, 4), (1,), (100, 1000)])
def test_what_is_written_is_read(file: SharedFile, shape: tuple[int, ...]) -> None:
    """An array comes back as it was, and leaves room for the next."""
    array = np.random.default_rng(0).integers(0, 100, size=shape)

    for _ in range(2):
        assert file.write(array)
        np.testing.assert_array_equal(file.read(array.shape, array.dtype), array)

    with pytest.raises(EOFError):
        file.read((1,), array.dtype)


def test_without_room_nothing_is_written(file: SharedFile) -> None:
    """Where there is no room for an array, that is said, and what was written of it is taken back."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        assert not file.write(np.zeros(1000))
        assert file.write(np.zeros(10))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert file.read((10,), np.dtype(float)).tolist() == [0.0] * 10
