// Contacts: what of the robot is nearer to something than a reach, and where that pushes the joints; one configuration
// in each V.
#pragma once

#include "kernels/collision.hpp"
#include "kernels/refine.hpp"

namespace mfik {

/// What configurations keep clear of.
struct Obstacles {
    const Chain* chain;  // to the tip, in metres
    const double* unit;  // of each joint, which the solver counts in [rad] or [m]
    BodyView body;
    WorldView world;
    bool self;      // whether links are compared with each other
    double margin;  // clearance to keep [m]
};

#ifndef __CUDACC__

/// Pairs that are nearer than a reach, by `depth` [m]. Each pushes the two apart with a force of its depth: the work of
/// all forces along a motion of the joints is how fast half the sum of the squared depths falls.
template <class V>
struct ContactsOf {
    V deepest;                    // largest depth [m]; 0: no contact
    V squared;                    // sum of the squared depths [m^2]
    V force[kMaxJoints + 1][3];   // on what moves with each frame [m]
    V moment[kMaxJoints + 1][3];  // of these forces about the origin of the base [m^2]
};

/// Collects contacts, for visit_near().
template <class V>
struct ContactCollector {
    const WorldView& world;
    V within;  // reach [m]
    ContactsOf<V> found;

    MFIK_INLINE V reach() const { return within; }
    MFIK_INLINE bool is_done() const { return false; }
    MFIK_INLINE void meet(const PlacedSphere<V>& first, const PlacedSphere<V>& second, const V* offset,
                          const V& squared, double radii, const Mask<V>& near) {
        const V one = splat<V>(1.0), length = square_root(squared);
        const Mask<V> apart = length > 0.0;  // else any direction leads out
        const V depth = select(near, within - (length - radii), V());
        const V scale = depth / select(apart, length, one);
        V force[3] = {select(apart, scale * offset[0], depth), scale * offset[1], scale * offset[2]};
        add(first, force);
        for (int i = 0; i < 3; ++i) force[i] = -force[i];
        add(second, force);
        count(depth);
    }
    MFIK_INLINE void meet(const PlacedSphere<V>& sphere, int shape, const V& distance, const Mask<V>& near) {
        V force[3];
        shape_gradient(world.shape[shape], sphere.center, within + sphere.radius, force);
        const V depth = select(near, within - distance, V());
        for (int i = 0; i < 3; ++i) force[i] = depth * force[i];
        add(sphere, force);
        count(depth);
    }

  private:
    MFIK_INLINE void add(const PlacedSphere<V>& sphere, const V* force) {
        const V* p = sphere.center;
        V *sum = found.force[sphere.frame], *moment = found.moment[sphere.frame];
        for (int i = 0; i < 3; ++i) {
            const int j = (i + 1) % 3, k = (i + 2) % 3;
            sum[i] += force[i];
            moment[i] += p[j] * force[k] - p[k] * force[j];
        }
    }
    MFIK_INLINE void count(const V& depth) {
        found.deepest = larger_of(found.deepest, depth);
        found.squared += depth * depth;
    }
};

/// All pairs that are nearer than `reach` [m], -infinity where none is asked for.
/// @param[in] frame  Of frames_of().
template <class V>
MFIK_INLINE ContactsOf<V> contacts(const Obstacles& obstacles, const TransformOf<V>* frame, const V& reach) {
    ContactCollector<V> collector{obstacles.world, reach, {}};
    visit_near(obstacles.body, obstacles.world, obstacles.self, frame, collector);
    return collector.found;
}

/// Motion [dof] of the joints, in their units, by the forces of contacts: sum over the contacts of depth times
/// d distance / d q.
/// @param[in] frame  Of frames_of().
template <class V>
MFIK_INLINE void pushed(const Obstacles& obstacles, const TransformOf<V>* frame, const ContactsOf<V>& contacts,
                        V* motion) {
    const Chain& chain = *obstacles.chain;
    V force[3] = {}, moment[3] = {};  // on all that joint j moves
    for (int j = chain.dof - 1; j >= 0; --j) {
        for (int i = 0; i < 3; ++i) {
            force[i] += contacts.force[j + 1][i];
            moment[i] += contacts.moment[j + 1][i];
        }
        // A joint moves about or along its frame's z axis, which its own motion leaves where it is.
        const V *R = frame[j + 1].R, *p = frame[j + 1].p, axis[3] = {R[2], R[5], R[8]};
        if (chain.kind[j] == JointKind::kPrismatic) {
            motion[j] = obstacles.unit[j] * (axis[0] * force[0] + axis[1] * force[1] + axis[2] * force[2]);
            continue;
        }
        motion[j] = axis[0] * (moment[0] - (p[1] * force[2] - p[2] * force[1])) +
                    axis[1] * (moment[1] - (p[2] * force[0] - p[0] * force[2])) +
                    axis[2] * (moment[2] - (p[0] * force[1] - p[1] * force[0]));
    }
}

/// Largest motion of a joint in one step out of collision [rad] or [m].
constexpr double kLargestEscape = 0.5;
/// Least share of the squared push that the null space has to leave: less is rounding, or a way that takes forever.
constexpr double kLeastEscape = 1e-4;

/// Step dq [dof] in the null space of the target, where at.q is, out of the contacts, which lie at `frame`:
///
///     dq = (sum_i d_i^2 / |n|^2) n,    n = (I - J^+ J) sum_i d_i dd_i/dq,
///
/// for one contact the least motion that undoes its depth d. Returns where there is such a way.
template <class V, class C, class E>
MFIK_INLINE Mask<V> escape(const C& chain, const E& constraints, const TransformOf<V>& T_target, const Iterate<V>& at,
                           const Obstacles& obstacles, const TransformOf<V>* frame, const ContactsOf<V>& contacts,
                           V* dq) {
    V J[kMaxJoints][6], unused[kMaxJoints], A[6][6] = {}, y[6] = {};
    assemble(chain, constraints, T_target, at, J, unused, A, y);
    pushed(obstacles, frame, contacts, dq);
    V push2 = V(), left2 = V(), largest = V();
    for (int a = 0; a < 6; ++a) {
        A[a][a] += kDampingFloor;
        y[a] = V();
    }
    for (int j = 0; j < chain.dof; ++j) {
        if (constraints.locked(j)) continue;
        for (int a = 0; a < 6; ++a) y[a] += J[j][a] * dq[j];
        push2 += dq[j] * dq[j];
    }
    solve6(A, y);
    for (int j = 0; j < chain.dof; ++j) {
        if (constraints.locked(j)) {
            dq[j] = V();
            continue;
        }
        for (int a = 0; a < 6; ++a) dq[j] -= J[j][a] * y[a];
        left2 += dq[j] * dq[j];
        largest = larger_of(largest, select(dq[j] < 0.0, -dq[j], dq[j]));
    }
    const Mask<V> leads_out = left2 > kLeastEscape * push2;
    V scale = contacts.squared / select(leads_out, left2, splat<V>(1.0));
    const Mask<V> too_far = scale * largest > kLargestEscape;
    scale = select(too_far, kLargestEscape / select(too_far, largest, splat<V>(1.0)), scale);
    for (int j = 0; j < chain.dof; ++j) dq[j] = scale * dq[j];
    return leads_out;
}

#endif

}  // namespace mfik
