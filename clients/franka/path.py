"""Play a motion on a Franka arm: joint positions at 1 kHz through libfranka.

    python path.py MOTION.npz [--robot ADDRESS]

MOTION.npz is what mfik.path.save_joints writes of a trajectory sampled every millisecond; it begins at rest, where the
arm is. Exit status 0 if the arm went through it and its joints end within 3 mrad; 1 if not, or if the robot stopped it.
"""

import argparse
import sys

import numpy as np
import pylibfranka

MAX_START = 3e-3  # [rad] an arm at rest drifts by 1 mrad
MAX_FINAL = 3e-3  # [rad] the simulator's impedance control holds a joint to 2 mrad only
SETTLE = 0.5  # how long the last joints are held [s]: the arm follows its commands with a lag


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("motion", help="trajectory.npz of scripts/solve_path.py")
    parser.add_argument("--robot", default="127.0.0.1", help="address of the robot")
    args = parser.parse_args()

    with np.load(args.motion) as arrays:
        t, q = arrays["t"], arrays["q"]
    robot = pylibfranka.Robot(args.robot, pylibfranka.RealtimeConfig.kIgnore)
    control = robot.start_joint_position_control(pylibfranka.ControllerMode.JointImpedance)
    state, _ = control.readOnce()
    begin = np.array(state.q_d)
    if np.abs(begin - q[0]).max() > MAX_START:
        print(f"motion: begins at {q[0]}, the arm is at {begin}; plan it from there (--q_start)")
        return 1
    now, off, commands = 0.0, [], 0
    drift = begin - q[0]  # fades out, without a jump in acceleration
    try:
        while now <= t[-1] + SETTLE:
            s = min(now / SETTLE, 1.0)
            planned = np.array([np.interp(now, t, joint) for joint in q.T])
            planned += (1.0 - s**3 * (10 + s * (6 * s - 15))) * drift
            off.append(np.abs(np.array(state.q) - planned).max())
            control.writeOnce(pylibfranka.JointPositions(planned.tolist()))
            state, duration = control.readOnce()
            now += duration.to_sec()  # 1 ms, or more where a command came too late
            commands += 1
        command = pylibfranka.JointPositions(q[-1].tolist())
        command.motion_finished = True
        control.writeOnce(command)
    except pylibfranka.ControlException as error:
        print(f"the robot stopped the motion after {now:.3f} s: {error}")
        return 1
    final = np.abs(np.array(robot.read_once().q) - q[-1]).max()
    print(f"{commands} commands in {now:.3f} s of robot time: joints off the plan max {1e3 * max(off):.3f} mrad,")
    print(f"at the end {1e3 * final:.3f} mrad")
    return 0 if final <= MAX_FINAL else 1


if __name__ == "__main__":
    sys.exit(main())
