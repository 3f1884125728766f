// What is drawn: the arm as the spheres of its body, the handle of its target, the ground.
import * as THREE from "three";
import { OrbitControls } from "three/addons/controls/OrbitControls.js";
import { TransformControls } from "three/addons/controls/TransformControls.js";

const SPHERE = new THREE.SphereGeometry(1, 16, 10).toNonIndexed().getAttribute("position").array;

const colour = (name) => new THREE.Color(getComputedStyle(document.documentElement).getPropertyValue(name));
const matrix = (rows) => new THREE.Matrix4().set(...rows, 0, 0, 0, 1);

/** Return the surface of the union of spheres [x, y, z, radius]: the triangles of each that lie in no other. */
function surface(spheres) {
  const [positions, normals] = [[], []];
  const squared = (x, y, z) => x * x + y * y + z * z;
  for (const own of spheres) {
    const meets = ([x, y, z, radius]) => squared(x - own[0], y - own[1], z - own[2]) < (radius + own[3]) ** 2;
    const near = spheres.filter((other) => other !== own && meets(other));
    for (let first = 0; first < SPHERE.length; first += 9) {
      const normal = SPHERE.subarray(first, first + 9);
      const corners = normal.map((value, k) => own[k % 3] + own[3] * value);
      const within = ([x, y, z, radius]) =>
        [0, 3, 6].every((k) => squared(corners[k] - x, corners[k + 1] - y, corners[k + 2] - z) < radius * radius);
      if (!near.some(within)) {
        positions.push(...corners);
        normals.push(...normal);
      }
    }
  }
  const geometry = new THREE.BufferGeometry();
  geometry.setAttribute("position", new THREE.Float32BufferAttribute(positions, 3));
  geometry.setAttribute("normal", new THREE.Float32BufferAttribute(normals, 3));
  return geometry;
}

export class Scene {
  /** Draw on a canvas; `moved` is called whenever the handle moves the target. */
  constructor(canvas, moved) {
    this.renderer = new THREE.WebGLRenderer({ canvas, antialias: true });
    this.scene = new THREE.Scene();
    this.camera = new THREE.PerspectiveCamera(40, 1, 0.05, 50);
    this.camera.up.set(0, 0, 1);
    const sun = new THREE.DirectionalLight(0xffffff, 2);
    sun.position.set(2, -3, 4);
    this.scene.add(new THREE.HemisphereLight(0xffffff, 0x8890a0, 1.6), sun);
    this.arm = new THREE.Group();
    this.target = new THREE.Group();
    this.ground = new THREE.Group();
    this.scene.add(this.arm, this.target, this.ground);
    this.materials = [1, 0.75].map((shade) => ({ shade, paint: new THREE.MeshLambertMaterial() }));

    this.orbit = new OrbitControls(this.camera, canvas);
    this.orbit.addEventListener("change", () => this.draw());
    this.handle = new TransformControls(this.camera, canvas);
    this.handle.setSpace("local");
    this.handle.attach(this.target);
    this.scene.add(this.handle.getHelper());
    this.handle.addEventListener("change", () => this.draw());
    this.handle.addEventListener("dragging-changed", ({ value }) => (this.orbit.enabled = !value));
    this.handle.addEventListener("objectChange", moved);

    new ResizeObserver(() => this.resize()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.paint());
    this.solved = true;
    this.paint();
  }

  /** Return the target's pose [x, y, z, qw, qx, qy, qz]. */
  pose() {
    const [x, y, z, w] = this.target.quaternion.toArray();
    return [...this.target.position.toArray(), w, x, y, z];
  }

  place([x, y, z, qw, qx, qy, qz]) {
    this.target.position.set(x, y, z);
    this.target.quaternion.set(qx, qy, qz, qw);
    this.draw();
  }

  /** Draw another robot, and look at it whole. */
  build(robot) {
    this.arm.clear();
    let lowest = 0;
    for (let frame = 0; frame <= robot.joints.length + 1; ++frame) {
      const links = robot.body.links.filter((link) => link.frame === frame);
      const spheres = links.flatMap((link) =>
        link.spheres.map(([x, y, z, radius]) => {
          const center = new THREE.Vector3(x, y, z).applyMatrix4(matrix(link.transform));
          return [...center, radius];
        }),
      );
      if (frame === 0) lowest = Math.min(...spheres.map(([, , z, radius]) => z - radius));
      const mesh = new THREE.Mesh(surface(spheres), this.materials[frame % 2].paint);
      mesh.matrixAutoUpdate = false;
      this.arm.add(mesh);
    }
    this.ground.position.z = lowest;
    const origins = [...robot.joints.map((joint) => joint.origin), robot.tool];
    const reach = origins.reduce((sum, origin) => sum + Math.hypot(origin[3], origin[7], origin[11]), 0);
    this.orbit.target.set(0.2 * reach, 0, 0.35 * reach + 0.5 * lowest);
    this.camera.position.set(1.2 * reach, -1.3 * reach, 0.85 * reach);
    this.orbit.update();
  }

  /** Put the links where frames, transforms of twelve numbers each, have them. */
  show(frames, solved) {
    this.arm.children.forEach((mesh, i) => mesh.matrix.copy(matrix(frames[i])));
    if (solved !== this.solved) {
      this.solved = solved;
      this.paint();
    }
    this.draw();
  }

  paint() {
    this.scene.background = colour("--page");
    for (const { shade, paint } of this.materials) {
      paint.color = colour(this.solved ? "--arm" : "--alarm").multiplyScalar(shade);
    }
    this.ground.clear();
    const grid = new THREE.GridHelper(4, 20, colour("--line"), colour("--line"));
    this.ground.add(grid.rotateX(Math.PI / 2));
    this.draw();
  }

  resize() {
    const { clientWidth, clientHeight } = this.renderer.domElement;
    this.renderer.setPixelRatio(Math.min(devicePixelRatio, 2));
    this.renderer.setSize(clientWidth, clientHeight, false);
    this.camera.aspect = clientWidth / clientHeight;
    this.camera.zoom = Math.min(1, 1.4 * this.camera.aspect); // an arm is higher than it is wide
    this.camera.updateProjectionMatrix();
    this.draw();
  }

  /**
   * Draw soon, however often this is called until then. A renderer slower than the display, which the page has to wait
   * for, then rests for as long as its picture took, and leaves that time to answers.
   */
  draw() {
    this.waiting ??= setTimeout(() => {
      requestAnimationFrame((begin) => {
        this.waiting = undefined;
        this.renderer.render(this.scene, this.camera);
        requestAnimationFrame((end) => (this.rest = end - begin > 25 ? end - begin : 0));
      });
    }, this.rest ?? 0);
  }
}
