"""Find joints for a path beside an obstacle, time them, and follow them in MuJoCo: computed torque at 1 kHz.

python examples/follow_path.py [PANDA_URDF]

Needs MuJoCo, toppra, and a full description of the Panda, with masses:
pip install mujoco example-robot-data 'mfik[motion]'
"""

import re
import sys
import sysconfig
from pathlib import Path

import mujoco
import numpy as np

from mfik.collision import Sphere, World
from mfik.path import deviation, interpolate, retime
from mfik.robots import load_robot
from mfik.solve import Solver, Status

PERIOD, SUBSTEPS = 1e-3, 4  # of control [s], and steps of the simulation in it
STIFFNESS, DAMPING = 400.0, 40.0  # of the error's dynamics [1/s^2], [1/s]: critically damped
ARMATURE = 0.1  # inertia of each motor as its joint sees it [kg m^2]
BALL, RADIUS = [0.6, -0.2, 0.4], 0.1  # [m]
MAX_ERROR_MM = 1.0

data_folder = Path(sysconfig.get_paths()["purelib"]) / "cmeel.prefix" / "share" / "example-robot-data" / "robots"
urdf = Path(sys.argv[1]) if len(sys.argv) > 1 else data_folder / "panda_description" / "urdf" / "panda.urdf"


def plant() -> mujoco.MjModel:
    """Return the arm with its collision meshes, its hand and the ball."""
    text = re.sub(r"<visual\b.*?</visual>", "", urdf.read_text(), flags=re.S)
    for package in set(re.findall(r"package://([^/\"]+)", text)):
        folder = next(parent for parent in urdf.resolve().parents if (parent / package).is_dir())
        text = text.replace(f"package://{package}", str(folder / package))
    settings = '<mujoco><compiler fusestatic="false" strippath="false"/></mujoco>'
    spec = mujoco.MjSpec.from_string(text.replace("</robot>", settings + "</robot>"))
    spec.worldbody.add_geom(name="ball", type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[RADIUS, 0, 0], pos=BALL)
    spec.add_exclude(bodyname1="panda_leftfinger", bodyname2="panda_rightfinger")  # the closed gripper's
    model = spec.compile()
    model.opt.timestep = PERIOD / SUBSTEPS
    model.dof_armature[:] = ARMATURE
    mujoco.mj_setConst(model, mujoco.MjData(model))
    return model


robot = load_robot(urdf, "panda_link0", "panda_link8", spheres="panda")  # its fingers stand at 0
solver = Solver.from_robot(robot)
home = np.array([0.0, -0.785, 0.0, -2.356, 0.0, 1.571, 0.785])
start = robot.fk(home)
waypoints = [start, start + [0.1, 0.25, -0.12, 0, 0, 0, 0], start + [0.2, 0.25, 0, 0, 0, 0, 0], start]
poses = interpolate(waypoints, max_translation=0.005, max_rotation=0.05)
path = solver.solve_path(poses, home, max_step=0.1, world=World([Sphere(RADIUS, [*BALL, 1, 0, 0, 0], "ball")]))
if path.status != Status.SOLVED:
    sys.exit(f"{path.reached} of {len(poses)} poses: {path.reason}")
motion = retime(path.q, acceleration=5.0, robot=robot, dt=PERIOD)
away = deviation(robot, motion.q, poses, at=motion.waypoint)
print(f"{len(poses)} poses in {1e-3 * path.time_us:.1f} ms, a motion of {motion.t[-1]:.3f} s, ", end="")
print(f"planned within {1e3 * away.translation:.2f} mm of the lines")

model = plant()
data = mujoco.MjData(model)
own = [model.joint(name).qposadr[0] for name in robot.joint_names]  # the others, of the fingers, are held
tip = model.body(robot.tip_link).id
data.qpos[own] = motion.q[0]
q, dq, ddq = np.zeros((3, model.nv))
torque = np.zeros(model.nv)
worst_mm, off_mm, contacts = 0.0, 0.0, 0
for row in range(len(motion.t)):
    mujoco.mj_forward(model, data)
    planned = robot.fk(motion.q[row])[:3]
    worst_mm = max(worst_mm, 1e3 * np.linalg.norm(data.xpos[tip] - planned))
    q[own], dq[own], ddq[own] = motion.q[row], motion.dq[row], motion.ddq[row]
    mujoco.mj_mulM(model, data, torque, ddq + DAMPING * (dq - data.qvel) + STIFFNESS * (q - data.qpos))
    data.qfrc_applied[:] = torque + data.qfrc_bias - data.qfrc_passive
    for _ in range(SUBSTEPS):
        mujoco.mj_step(model, data)
        contacts += data.ncon
print(f"{len(motion.t)} commands: tool at most {worst_mm:.3f} mm off the plan, {contacts} contacts")
if worst_mm > MAX_ERROR_MM or contacts or np.abs(motion.dq).max() > robot.velocity.max():
    sys.exit("not as expected")
