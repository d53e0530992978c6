"""What the compiled CUDA kernels take of a multiprocessor."""

import pytest
from machine_code import resources


@pytest.fixture(scope="session")
def usage():
    """Architecture -> kernel -> its registers, bytes of stack, shared and local memory."""
    return resources()
