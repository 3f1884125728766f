// Forward kinematics of the robot that a bundle describes.
// A transform is its first three rows, 12 numbers: r11 r12 r13 x, r21 ...

/** Return the document's `robot` from the bytes of model.safetensors: JSON in the header of the file. */
export function readRobot(bytes) {
  const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
  return JSON.parse(header.__metadata__.mfik).robot;
}

function product(a, b) {
  const c = [];
  for (let row = 0; row < 12; row += 4) {
    for (let column = 0; column < 4; ++column) {
      const moved = column === 3 ? a[row + 3] : 0;
      c.push(a[row] * b[column] + a[row + 1] * b[column + 4] + a[row + 2] * b[column + 8] + moved);
    }
  }
  return c;
}

/** Return T_base_frame of the base, of each joint after its motion q [rad or m], and of the tool: J + 2 transforms. */
export function frames(robot, q) {
  const found = [[1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0]];
  robot.joints.forEach((joint, j) => {
    const [c, s] = [Math.cos(q[j]), Math.sin(q[j])];
    const turned = [c, -s, 0, 0, s, c, 0, 0, 0, 0, 1, 0];
    const motion = joint.kind === "prismatic" ? [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, q[j]] : turned;
    found.push(product(product(found[j], joint.origin), motion));
  });
  found.push(product(found.at(-1), robot.tool));
  return found;
}

/** Return [x, y, z, qw, qx, qy, qz] of a transform, with a unit quaternion. */
export function poseOf([a, b, c, x, d, e, f, y, g, h, i, z]) {
  const multiples = [
    [1 + a + e + i, h - f, c - g, d - b], // 4 quat quat^T: each row is a multiple of the quaternion
    [h - f, 1 + a - e - i, b + d, c + g],
    [c - g, b + d, 1 - a + e - i, f + h],
    [d - b, c + g, f + h, 1 - a - e + i],
  ];
  const longest = multiples.reduce((best, row, k) => (row[k] > multiples[best][best] ? k : best), 0);
  const length = Math.hypot(...multiples[longest]);
  return [x, y, z, ...multiples[longest].map((value) => value / length)];
}

/** Return the transform of a pose [x, y, z, qw, qx, qy, qz] with a unit quaternion. */
export function transformOf([px, py, pz, w, x, y, z]) {
  return [
    1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y), px,
    2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x), py,
    2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y), pz,
  ];
}

/** Return the distance [m] and the angle [rad] between two transforms. */
export function offBy(reached, wanted) {
  const R = [0, 1, 2].map((row) =>
    [0, 1, 2].map((column) => [0, 4, 8].reduce((sum, k) => sum + wanted[k + row] * reached[k + column], 0)),
  );
  const sine = Math.hypot(R[2][1] - R[1][2], R[0][2] - R[2][0], R[1][0] - R[0][1]) / 2;
  const distance = Math.hypot(...[3, 7, 11].map((k) => reached[k] - wanted[k]));
  return [distance, Math.atan2(sine, (R[0][0] + R[1][1] + R[2][2] - 1) / 2)];
}
