"""Spheres by link in YAML, in the form that cuRobo reads: `collision_spheres: {link: [{center, radius}]}`.

Pairs of links that are not to be checked stand in the same file, as cuRobo has them too: `self_collision_ignore: {link:
[links]}`.

Files are written in the part of YAML that is JSON, so that reading them needs no YAML library.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mfik.collision.body import check_spheres
from mfik.errors import ArgumentError, RobotError

_KEY = "collision_spheres"
_IGNORE = "self_collision_ignore"


def read_spheres(path: str | PathLike[str]) -> dict[str, np.ndarray]:
    """Read spheres by link from a YAML file.

    `collision_spheres` may stand at the root, or where cuRobo's robot files have it (`robot_cfg: kinematics:`). Spheres
    whose radius is not above 0, which cuRobo uses as placeholders, are left out.

    Args:
        path: The file.
    Returns:
        Centre in the link's frame and radius of each sphere [m], [S, 4], by the link's name.
    Raises:
        ArgumentError: The file cannot be read, or has another form.
        ImportError: The file is YAML but not JSON, and PyYAML is not installed (extra `collision`).
    """
    where = f"spheres: {path}"
    entries = _read_document(path)[_KEY]
    spheres: dict[str, np.ndarray] = {}
    for link, rows in entries.items():
        try:
            values = [(*row["center"], row["radius"]) for row in rows or ()]
            values = [(x, y, z, radius) for x, y, z, radius in values if not radius <= 0]
        except (TypeError, KeyError, ValueError):
            raise ArgumentError(
                f"{where}: {_KEY}.{link}: expected a list of {{center: [x, y, z], radius: r}}, got {rows!r:.60}; "
                "write it with scripts/fit_spheres.py"
            ) from None
        if values:
            try:
                spheres[str(link)] = check_spheres(f"{_KEY}.{link}", values)
            except RobotError as error:
                raise ArgumentError(f"{where}: {error}") from None
    return spheres


def read_ignored(path: str | PathLike[str], links: Iterable[str]) -> set[frozenset[str]]:
    """Read the pairs of links that a file of spheres leaves out (`self_collision_ignore: {link: [links]}`).

    Args:
        path: The file.
        links: Names that it may mention, beside those to which it gives spheres itself.
    Raises:
        ArgumentError: It cannot be read, has another form, or names an unknown link.
    """
    document = _read_document(path)
    where = f"spheres: {path}: {_IGNORE}"
    ignored = document.get(_IGNORE) or {}
    if not isinstance(ignored, dict) or not all(isinstance(others, list) for others in ignored.values()):
        raise ArgumentError(f"{where}: expected '{{link: [links]}}', got {ignored!r:.60}; correct it there")
    # Links that cuRobo makes for what the robot will hold.
    extra = document.get("extra_collision_spheres")
    known = {*links, *document[_KEY], *(extra if isinstance(extra, dict) else ())}
    pairs = {frozenset((link, other)) for link, others in ignored.items() for other in others if link != other}
    for name in sorted({name for pair in pairs for name in pair} - known, key=str):
        raise ArgumentError(f"{where}: link {name!r} does not exist; use links of {', '.join(sorted(known))}")
    return pairs


def write_spheres(
    path: str | PathLike[str],
    spheres: Mapping[str, ArrayLike],
    source: str = "",
    ignored: Iterable[Iterable[str]] = (),
) -> None:
    """Write spheres by link to a YAML file, whole or not at all.

    Args:
        path: The file.
        spheres: Centre in the link's frame and radius of each sphere [m], [S, 4], by the link's name.
        source: Where they come from; the file's entry `source`.
        ignored: Pairs of links that are not checked against each other.
    Raises:
        RobotError: A number is not finite, or a radius is not above 0.
        WriteError: The disk is full, the folder is read-only, or the like.
    """
    from mfik.writing import whole_file  # slow to import

    blocks = []
    for link, rows in spheres.items():
        checked = check_spheres(f"{_KEY}.{link}", rows).tolist()
        lines = [f'{{"center": [{x!r}, {y!r}, {z!r}], "radius": {radius!r}}}' for x, y, z, radius in checked]
        blocks.append(f"    {json.dumps(link)}: [\n      " + ",\n      ".join(lines) + "\n    ]")
    others: dict[str, list[str]] = {}
    for first, second in sorted(sorted(pair) for pair in ignored):
        others.setdefault(first, []).append(second)
    ignore = f'  "{_IGNORE}": {json.dumps(others)},\n' if others else ""
    head = f'{{\n  "source": {json.dumps(source)},\n{ignore}  "{_KEY}": {{\n'
    text = head + ",\n".join(blocks) + "\n  }\n}\n"
    with whole_file(Path(path)) as file:
        file.write(text.encode())


def _read_document(path: str | PathLike[str]) -> dict[str, Any]:
    """Return the part of a file that holds the spheres by link."""
    path = Path(path)
    where = f"spheres: {path}"
    try:
        document = parse(path.read_text())
    except OSError as error:
        raise ArgumentError(f"{where}: cannot read the file ({error.strerror}); check the path") from None
    except ValueError as error:
        raise ArgumentError(f"{where}: malformed YAML ({error}); correct it there") from None
    for key in ("robot_cfg", "kinematics"):
        if isinstance(document, dict) and _KEY not in document and isinstance(document.get(key), dict):
            document = document[key]
    entries = document.get(_KEY) if isinstance(document, dict) else None
    if not isinstance(document, dict) or not isinstance(entries, dict):
        raise ArgumentError(
            f"{where}: expected '{_KEY}: {{link: [{{center: [x, y, z], radius: r}}]}}', got {entries!r:.60}; "
            "write it with scripts/fit_spheres.py"
        )
    return document


def parse(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        import yaml
    except ImportError as error:
        raise ImportError(f"YAML needs PyYAML ({error}): pip install 'mfik[collision]', or write JSON") from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


def as_spheres(given: Any) -> dict[str, np.ndarray]:
    """Return spheres by link from a YAML file's path or a mapping.

    Raises:
        ArgumentError: They are neither.
    """
    if isinstance(given, (str, PathLike)):
        return read_spheres(given)
    if not isinstance(given, Mapping):
        raise ArgumentError(
            f"spheres: expected the path of a YAML file or spheres [S, 4] by link, got {type(given).__name__}; "
            "fit them with scripts/fit_spheres.py"
        )
    try:
        return {str(link): check_spheres(f"link '{link}'", rows) for link, rows in given.items()}
    except RobotError as error:
        raise ArgumentError(f"spheres: {error}") from None
