"""Expansion of xacro files (https://github.com/ros/xacro)."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mfik.errors import RobotError
from mfik.robots.packages import find_package
from mfik.robots.urdf import parse_text


def expand(
    path: Path, arguments: Mapping[str, Any], folders: tuple[Path, ...], packages: Mapping[str, str]
) -> ET.Element:
    """Return the root element of a xacro file after its expansion.

    Args:
        path: The file.
        arguments: Values of its arguments, by name; those that it does not declare have no effect.
        folders: Folders that hold packages.
        packages: Folders of packages, by name.
    Raises:
        ImportError: xacro is not installed.
        RobotError: It cannot be expanded.
    """
    from unittest import mock  # slow to import

    try:
        import xacro
    except ImportError as error:
        raise ImportError(f"{path}: .xacro files need xacro ({error}): pip install 'mfik[xacro]'") from None

    def share(package: str) -> str:
        return packages.get(package) or str(find_package(package, path.parent, folders))

    # xacro asks ament_index_python, of ROS 2, for the folder of a package.
    module = SimpleNamespace(get_package_share_directory=share)
    ament: dict[str, Any] = {
        "ament_index_python": SimpleNamespace(packages=module),
        "ament_index_python.packages": module,
    }
    mappings = {str(key): str(value) for key, value in arguments.items()}
    try:
        with mock.patch.dict(sys.modules, ament):
            text = xacro.process_file(str(path), mappings=mappings).toxml()
    except Exception as error:  # whatever an expression in the file raises
        raise RobotError(
            f"{path}: xacro cannot expand it ({str(error) or type(error).__name__}); correct it there, or give what it "
            "lacks in xacro_args or package_paths"
        ) from None
    return parse_text(path, text.encode())
