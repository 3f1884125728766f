"""MJCF files (https://mujoco.readthedocs.io/en/stable/XMLreference.html), which MuJoCo compiles, as URDF."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mfik.errors import RobotError

if TYPE_CHECKING:
    import mujoco

Meshes = dict[str, tuple[np.ndarray, np.ndarray]]


def read_mjcf(path: Path) -> tuple[ET.Element, Meshes, frozenset[frozenset[str]]]:
    """Read an MJCF file as URDF.

    Bodies and sites are links, "world" among them. A joint turns or slides by q - ref about or along its axis at its
    place in the body; where it is not the body's only one, or not at its origin, a link named after it stands in
    between. Joint equalities that are linear are `<mimic>`; other ones make the joint's type "constrained". Geoms that
    can collide are `<collision>`: an ellipsoid as the box around it, and none of the world body's own.

    Returns:
        The <robot> element; vertices [V, 3] [m] and faces [F, 3] of meshes by their `filename`; pairs of links whose
        contacts the file leaves out.
    Raises:
        ImportError: mujoco is not installed.
        RobotError: MuJoCo cannot compile the file.
    """
    try:
        import mujoco
    except ImportError as error:
        raise ImportError(f"{path}: MJCF files need mujoco ({error}): pip install 'mfik[mjcf]'") from None
    try:
        model = mujoco.MjModel.from_xml_path(str(path))
    except ValueError as error:
        raise RobotError(
            f"{path}: MuJoCo cannot compile it ({' '.join(str(error).split())}); correct it there"
        ) from None
    return _Converter(model).convert(path)


class _Converter:
    """Writes the elements of one model."""

    def __init__(self, model: mujoco.MjModel) -> None:
        import mujoco

        self._mujoco, self._model = mujoco, model
        self._links: set[str] = set()
        self._meshes: Meshes = {}
        objects = mujoco.mjtObj
        self._bodies = [
            self._unique(self._name(objects.mjOBJ_BODY, body) or f"body {body}") for body in range(model.nbody)
        ]
        self._joints = [
            self._name(objects.mjOBJ_JOINT, joint) or f"joint {joint} of {self._bodies[model.jnt_bodyid[joint]]}"
            for joint in range(model.njnt)
        ]

    def convert(self, path: Path) -> tuple[ET.Element, Meshes, frozenset[frozenset[str]]]:
        model = self._model
        self._root = ET.Element("robot", name=model.names.split(b"\0")[0].decode() or path.stem)
        for body, name in enumerate(self._bodies):
            link = ET.SubElement(self._root, "link", name=name)
            if body > 0:
                self._add_body(body)
                self._add_geometry(body, link)
        for site in range(model.nsite):
            given = self._name(self._mujoco.mjtObj.mjOBJ_SITE, site)
            if given:
                name = self._unique(given if given not in self._links else f"site {given}")
                ET.SubElement(self._root, "link", name=name)
                place = _pose(model.site_pos[site], model.site_quat[site])
                self._add_joint(f"{name} (fixed)", "fixed", self._bodies[model.site_bodyid[site]], name, place)
        return self._root, self._meshes, self._excluded()

    def _name(self, kind: int, index: int) -> str | None:
        return self._mujoco.mj_id2name(self._model, kind, index)

    def _unique(self, name: str) -> str:
        while name in self._links:
            name += "'"
        self._links.add(name)
        return name

    def _add_body(self, body: int) -> None:
        """Add the joints between a body and its parent, in their order; the last one is fixed if need be."""
        model, kinds = self._model, self._mujoco.mjtJoint
        parent, name = self._bodies[model.body_parentid[body]], self._bodies[body]
        place = _pose(model.body_pos[body], model.body_quat[body])
        first, count = int(model.body_jntadr[body]), int(model.body_jntnum[body])
        for joint in range(first, first + count):
            kind, axis = int(model.jnt_type[joint]), model.jnt_axis[joint]
            anchor = np.zeros(3) if kind in (kinds.mjJNT_SLIDE, kinds.mjJNT_FREE) else model.jnt_pos[joint]
            follows, constant = self._equality(joint)
            reference = float(model.qpos0[model.jnt_qposadr[joint]])
            place = place @ _pose(anchor, None)
            if kind == kinds.mjJNT_FREE:
                word = "free"
            elif kind == kinds.mjJNT_BALL:
                word = "ball"
            else:
                value = -reference if constant is None else constant
                place = place @ _motion(kind == kinds.mjJNT_SLIDE, axis, value)
                word = "prismatic" if kind == kinds.mjJNT_SLIDE else "revolute"
                if kind == kinds.mjJNT_HINGE and not model.jnt_limited[joint]:
                    word = "continuous"
            last = joint == first + count - 1 and not anchor.any()
            child = name
            if not last:
                child = self._unique(f"{self._joints[joint]} (moved)")
                ET.SubElement(self._root, "link", name=child)
            if constant is not None:
                word = "fixed"
            elif follows is not None and follows.get("joint") is None:
                word = "constrained"
            element = self._add_joint(self._joints[joint], word, parent, child, place)
            if word in ("revolute", "continuous", "prismatic"):
                ET.SubElement(element, "axis", xyz=_text(axis))
                if model.jnt_limited[joint]:
                    lower, upper = model.jnt_range[joint].tolist()
                    ET.SubElement(element, "limit", lower=repr(lower), upper=repr(upper))
                if follows is not None:
                    element.append(follows)
            parent, place = child, _pose(-anchor, None)
        if parent != name:
            self._add_joint(f"{name} (fixed)", "fixed", parent, name, place)

    def _equality(self, joint: int) -> tuple[ET.Element | None, float | None]:
        """Return the <mimic> of a joint, without attributes where there is none like it; or a value that holds it.

        The value is of q - ref. MuJoCo's equality is q - ref = a0 + a1 (q' - ref') + ..., of another joint q' or none.
        """
        model = self._model
        rows = [
            row
            for row in range(model.neq)
            if model.eq_type[row] == self._mujoco.mjtEq.mjEQ_JOINT
            and model.eq_active0[row]
            and model.eq_obj1id[row] == joint
        ]
        if not rows:
            return None, None
        a0, a1, *higher = model.eq_data[rows[0], :5].tolist()
        other = int(model.eq_obj2id[rows[0]])
        if len(rows) > 1 or (other >= 0 and any(higher)):
            return ET.Element("mimic"), None
        if other < 0 or a1 == 0.0:
            return None, a0
        ref, other_ref = (float(model.qpos0[model.jnt_qposadr[j]]) for j in (joint, other))
        offset = ref + a0 - a1 * other_ref
        return ET.Element("mimic", joint=self._joints[other], multiplier=repr(a1), offset=repr(offset)), None

    def _add_joint(self, name: str, kind: str, parent: str, child: str, place: np.ndarray) -> ET.Element:
        element = ET.SubElement(self._root, "joint", name=name, type=kind)
        ET.SubElement(element, "parent", link=parent)
        ET.SubElement(element, "child", link=child)
        element.append(_origin(place))
        return element

    def _add_geometry(self, body: int, link: ET.Element) -> None:
        model, kinds = self._model, self._mujoco.mjtGeom
        paired = {*model.pair_geom1.tolist(), *model.pair_geom2.tolist()}
        first = int(model.body_geomadr[body])
        for geom in range(first, first + int(model.body_geomnum[body])):
            if not (model.geom_contype[geom] or model.geom_conaffinity[geom] or geom in paired):
                continue
            collision = ET.SubElement(link, "collision")
            collision.append(_origin(_pose(model.geom_pos[geom], model.geom_quat[geom])))
            geometry = ET.SubElement(collision, "geometry")
            kind, size = int(model.geom_type[geom]), model.geom_size[geom]
            if kind == kinds.mjGEOM_SPHERE:
                ET.SubElement(geometry, "sphere", radius=repr(float(size[0])))
            elif kind in (kinds.mjGEOM_CYLINDER, kinds.mjGEOM_CAPSULE):
                word = "cylinder" if kind == kinds.mjGEOM_CYLINDER else "capsule"
                ET.SubElement(geometry, word, radius=repr(float(size[0])), length=repr(2.0 * float(size[1])))
            elif kind in (kinds.mjGEOM_BOX, kinds.mjGEOM_ELLIPSOID):
                ET.SubElement(geometry, "box", size=_text(2.0 * size))
            elif kind in (kinds.mjGEOM_MESH, kinds.mjGEOM_SDF):
                ET.SubElement(geometry, "mesh", filename=self._mesh(int(model.geom_dataid[geom])))
            else:
                ET.SubElement(geometry, kinds(kind).name.removeprefix("mjGEOM_").lower())  # which no reader knows

    def _mesh(self, mesh: int) -> str:
        model = self._model
        name = f"mesh {self._name(self._mujoco.mjtObj.mjOBJ_MESH, mesh) or mesh} of the MJCF file"
        vertices, faces = (
            array[start : start + count].copy()
            for array, start, count in (
                (model.mesh_vert, model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]),
                (model.mesh_face, model.mesh_faceadr[mesh], model.mesh_facenum[mesh]),
            )
        )
        self._meshes[name] = (vertices.astype(np.float64), faces)
        return name

    def _excluded(self) -> frozenset[frozenset[str]]:
        """Return the pairs of <exclude>, and bodies that joints join, which MuJoCo lets overlap."""
        model, bodies = self._model, self._bodies
        pairs = {frozenset((bodies[row >> 16], bodies[row & 0xFFFF])) for row in model.exclude_signature.tolist()}
        if not model.opt.disableflags & self._mujoco.mjtDisableBit.mjDSBL_FILTERPARENT:
            weld, parent = model.body_weldid, model.body_parentid
            for body in range(1, model.nbody):
                above = weld[parent[weld[body]]]
                pairs |= {
                    frozenset((bodies[body], bodies[other])) for other in range(1, model.nbody) if weld[other] == above
                }
        return frozenset(pair for pair in pairs if len(pair) == 2)


def _motion(slides: bool, axis: np.ndarray, value: float) -> np.ndarray:
    """Return the motion [4, 4] of a joint by a value along or about its unit axis."""
    if slides:
        return _pose(value * axis, None)
    return _pose(np.zeros(3), np.array([math.cos(0.5 * value), *(math.sin(0.5 * value) * axis)]))


def _pose(position: np.ndarray, quat: np.ndarray | None) -> np.ndarray:
    """Return a transform [4, 4] of a position [m] and a quaternion [w, x, y, z], which is made unit."""
    matrix = np.eye(4)
    matrix[:3, 3] = position
    if quat is not None:
        w, x, y, z = quat / np.linalg.norm(quat)
        matrix[:3, :3] = [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    return matrix


def _origin(place: np.ndarray) -> ET.Element:
    """Return <origin> of a transform [4, 4].

    Roll is what yaw and pitch leave of the rotation, so that they are exact where pitch is near a right angle, too.
    """
    r = place[:3, :3]
    yaw, pitch = math.atan2(r[1, 0], r[0, 0]), math.atan2(-r[2, 0], math.hypot(r[0, 0], r[1, 0]))
    (sp, sy), (cp, cy) = ([f(angle) for angle in (pitch, yaw)] for f in (math.sin, math.cos))
    y, z = np.array([-sy, cy, 0.0]), np.array([cy * sp, sy * sp, cp])  # of Rz(yaw) Ry(pitch)
    roll = math.atan2(z @ r[:, 1], y @ r[:, 1])
    return ET.Element("origin", xyz=_text(place[:3, 3]), rpy=_text(np.array([roll, pitch, yaw])))


def _text(values: np.ndarray) -> str:
    return " ".join(repr(float(value)) for value in values)
