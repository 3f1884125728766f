"""Draw a circle with a Franka arm: 8 cm radius, downwards from where the flange is, back to it after 6 s.

    python circle.py LIBRARY BUNDLE [--robot ADDRESS]

Joint positions at 1 kHz through libfranka; mfik's C API turns each pose of the circle into joints next to the last
ones. Exit status 0 if the flange went round within 5 mm of the circle and came back to within 1 mm; 1 if not, if a pose
had no answer or if the robot stopped the motion.
"""

import argparse
import ctypes
import math
import sys
import time

import numpy as np
import pylibfranka

RADIUS = 0.08  # [m]
DURATION = 6.0  # [s]
MAX_SPEED = 2.0  # of a joint [rad/s]
MAX_ERROR, MAX_FINAL_ERROR = 5e-3, 1e-3  # [m]
T_LINK7_FLANGE = np.array([0, 0, 0.107])  # the simulator's O_T_EE is link 7's; a robot's depends on its set-up


class Arm:
    """libmfik.so for this loop: forward kinematics, and joints for the next pose."""

    def __init__(self, library, bundle):
        self._mfik = ctypes.CDLL(library)
        for name in ("load", "workspace_create"):
            getattr(self._mfik, f"mfik_{name}").restype = ctypes.c_void_p
        self._mfik.mfik_status_name.restype = ctypes.c_char_p
        error = ctypes.create_string_buffer(512)
        self._solver = ctypes.c_void_p(self._mfik.mfik_load(bundle.encode(), error, ctypes.c_size_t(len(error))))
        if not self._solver:
            raise SystemExit(error.value.decode())
        self._workspace = ctypes.c_void_p(self._mfik.mfik_workspace_create(self._solver))

    def fk(self, q):
        pose = np.empty(7)
        self._mfik.mfik_fk(self._solver, doubles(q), doubles(pose))
        return pose

    def track(self, pose, q_prev, max_step):
        q, step = np.empty(7), ctypes.c_double(max_step)
        status = self._mfik.mfik_track(
            self._solver, doubles(pose), doubles(q_prev), step, doubles(q), self._workspace, None, None
        )
        return q, "" if status == 0 else self._mfik.mfik_status_name(status).decode()


def doubles(array):
    """Return the address of an array of doubles for a C function."""
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_double))


def circle(T_base_flange, seconds):
    """Return the target [x, y, z, qw, qx, qy, qz] at a time: from rest to rest, without a jump in acceleration."""
    s = min(seconds / DURATION, 1.0)
    angle = 2 * math.pi * s**3 * (10 + s * (6 * s - 15))
    pose = T_base_flange.copy()
    pose[1] += RADIUS * math.sin(angle)
    pose[2] += RADIUS * (math.cos(angle) - 1)
    return pose


def measured_flange(state):
    """Return the flange's position in the base frame [m] as the robot measures it."""
    O_T_EE = np.array(state.O_T_EE).reshape(4, 4).T  # sent by columns
    return O_T_EE[:3, 3] + O_T_EE[:3, :3] @ T_LINK7_FLANGE


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("library", help="libmfik.so: in the folder that `python -m mfik --lib-dir` prints")
    parser.add_argument("bundle", help="folder or model.safetensors of an FR3 from base to link8")
    parser.add_argument("--robot", default="127.0.0.1", help="address of the robot")
    parser.add_argument("--jump", type=float, default=0.0, help="added to joint 1 halfway, to see it refused [rad]")
    args = parser.parse_args()

    arm = Arm(args.library, args.bundle)
    robot = pylibfranka.Robot(args.robot, pylibfranka.RealtimeConfig.kIgnore)
    control = robot.start_joint_position_control(pylibfranka.ControllerMode.JointImpedance)
    state, _ = control.readOnce()
    q = np.array(state.q_d)
    T_start = arm.fk(q)
    if np.linalg.norm(measured_flange(state) - T_start[:3]) > 5e-3:
        print(f"bundle: puts the flange at {T_start[:3]}, the robot at {measured_flange(state)}; give this robot's")
        return 1

    centre = T_start[:3] - [0, 0, RADIUS]
    now, period, path, micros, jump = 0.0, 1e-3, [], [], np.zeros(7)
    try:
        while now <= DURATION:
            before = time.perf_counter()
            q, problem = arm.track(circle(T_start, now), q, MAX_SPEED * period)
            micros.append(1e6 * (time.perf_counter() - before))
            if problem:
                print(f"no answer after {now:.3f} s: {problem}")
                return 1
            if now > DURATION / 2:
                jump[0] = args.jump
            control.writeOnce(pylibfranka.JointPositions((q + jump).tolist()))
            state, duration = control.readOnce()
            path.append(measured_flange(state) - centre)
            period = duration.to_sec()  # 1 ms, or more where a command came too late
            now += period
        command = pylibfranka.JointPositions(q.tolist())
        command.motion_finished = True
        control.writeOnce(command)
    except pylibfranka.ControlException as error:
        print(f"the robot stopped the motion after {now:.3f} s: {error}")
        return 1
    final = np.linalg.norm(measured_flange(robot.read_once()) - T_start[:3])
    x, y, z = np.array(path).T
    errors = np.hypot(x, np.hypot(y, z) - RADIUS)
    p50, p99 = np.percentile(micros, [50, 99])
    print(f"{len(path)} commands in {now:.3f} s of robot time: flange error at the end {1e3 * final:.3f} mm,")
    print(f"off the circle max {1e3 * errors.max():.3f} mm, mean {1e3 * errors.mean():.3f} mm,")
    print(f"solve p50 {p50:.0f} us, p99 {p99:.0f} us, max {max(micros):.0f} us (from Python)")
    went_round = z.min() < -0.9 * RADIUS
    return 0 if went_round and errors.max() <= MAX_ERROR and final <= MAX_FINAL_ERROR else 1


if __name__ == "__main__":
    sys.exit(main())
