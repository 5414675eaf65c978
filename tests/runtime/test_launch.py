"""What a helper reports, in whatever order its processes come to tell it."""

from __future__ import annotations

import os

import pytest

from sampan.errors import Conflict
from sampan.runtime import launch


def test_a_tree_operation_that_fails_before_its_start_is_told_keeps_its_reason() -> None:
    read, write = os.pipe()
    child = launch.Child(os.getpid(), -1, read)
    path = b"loop/x"
    for kind, error, value, extra, data in (
        (launch.TREE, 40, 3, 0, path),
        (launch.STARTED, 0, 1, 1, b""),
        (launch.EXITED, 0, 1, 0, b""),
    ):
        os.write(write, launch._HEAD.pack(kind, 0, error, value, extra, len(data), 0) + data)
    os.close(write)
    child.await_start()
    with pytest.raises(Conflict, match="cannot open the destination loop/x: Too many levels of symbolic links"):
        child.wait()
