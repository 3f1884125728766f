// Clearance: distance of the robot's spheres to each other and to the shapes of a world, one configuration in each V.
//
// Broad phase first: the spheres of a link lie in one ball around them, and a ball farther away than the nearest pair
// found so far is left out whole. Distances to shapes are exact and signed: negative inside.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/chain.hpp"
#include "kernels/point_cloud.hpp"
#if defined(__AVX__) && !defined(__CUDACC__)
#include <immintrin.h>
#elif defined(__x86_64__) && !defined(__CUDACC__)
#include <emmintrin.h>  // a tenth of the other to compile, in every source of the solver
#endif

namespace mfik {

enum class ShapeKind : std::int32_t { kSphere, kBox, kCylinder, kCapsule, kHalfSpace, kPointCloud };

/// A shape in single precision, as cpu/sphere_check.hpp takes it.
struct SingleShape {
    float R[9];      // of T_base_shape
    float along[3];  // its translation in the frame of the shape [m]; of a cloud: from the corner of the grid
    float size[3];   // of ShapeView, but spheres and capsules [m]
    float radius;    // around a centre, an axis or points [m]
    float extent;    // length of the translation and the sizes together [m], which bounds rounding
};

/// A shape of a world. Sizes [m]: radius; half edges; radius and half length along z; none, the solid is z <= 0; radius
/// of each point.
struct ShapeView {
    ShapeKind kind;
    Transform T;  // T_base_shape
    double size[3];
    CloudView cloud;  // of a point cloud
    SingleShape single;
};

struct WorldView {
    const ShapeView* shape = nullptr;
    int size = 0;
};

/// Spheres [begin, end) of a body, which move with a frame.
struct LinkSpheres {
    int frame;  // 0: the base; j: joint j - 1 after its motion
    int begin, end;
    double center[3];  // of a ball around them, in the frame [m]
    double radius;     // [m]
};

constexpr int kMaxLinks = 128;     // of a body; also in mfik/collision/body.py
constexpr int kMaxSpheres = 2048;  // likewise

/// A radius that reaches nothing; its square is finite in single precision.
constexpr float kNowhere = -1e18f;

/// The spheres of a body in single precision and side by side, as cpu/sphere_check.hpp takes them.
struct SphereRows {
    /// Centres in the links' frames and radii [m] of the spheres, in the order of BodyView::sphere, with the ball
    /// around each link behind its last one.
    const float *x, *y, *z, *radius;
    const float* ball;               // radius of the ball around each link [m]
    const float* ball_beside_world;  // the same; kNowhere of links that are not compared with the world
    const std::uint64_t (*partners)[kMaxLinks / 64];  // of each link, bit b: it is checked against link b, b > link
    float smallest;                                   // radius of a sphere [m]
    float extent;                                     // no sphere reaches farther from the origin of its frame [m]
};

struct BodyView {
    const double (*sphere)[4] = nullptr;  // centre in the link's frame and radius [m]
    const LinkSpheres* link = nullptr;
    int num_links = 0;
    const int (*pair)[2] = nullptr;  // links that are checked against each other
    int num_pairs = 0;
    SphereRows rows{};
    /// How much farther from each other two links count than they are [m]: a margin that is kept to the world is not
    /// asked of links, of which some are never far apart.
    double allowance = 0.0;
};

/// The nearest two. Indices as numbers, since lanes hold numbers.
template <class V>
struct NearestOf {
    V distance;  // [m]
    V first;     // sphere
    V second;    // sphere, or -1 - shape
};

#ifndef __CUDACC__
/// any(), in one instruction.
MFIK_INLINE bool any_of(bool mask) {
    return mask;
}
MFIK_INLINE bool any_of(const LaneMask& mask) {
#if defined(__AVX512DQ__)
    return _mm512_movepi64_mask(reinterpret_cast<const __m512i&>(mask)) != 0;
#elif defined(__AVX__)
    return _mm256_movemask_pd(reinterpret_cast<const __m256d&>(mask)) != 0;
#elif defined(__x86_64__)
    return _mm_movemask_pd(reinterpret_cast<const __m128d&>(mask)) != 0;
#else
    return any(mask);
#endif
}

MFIK_INLINE int lanes_in(double) {
    return 1;
}
MFIK_INLINE int lanes_in(const Lanes&) {
    return kLanes;
}
MFIK_INLINE double lane_of(double x, int) {
    return x;
}
MFIK_INLINE double lane_of(const Lanes& x, int lane) {
    return x[lane];
}
MFIK_INLINE void set_lane_of(double& x, int, double value) {
    x = value;
}
MFIK_INLINE void set_lane_of(Lanes& x, int lane, double value) {
    x[lane] = value;
}

template <class V>
MFIK_INLINE V larger_of(const V& a, const V& b) {
    return select(a > b, a, b);
}

/// Frames of a chain: the base, then every joint after its motion; [dof + 1].
template <class V>
MFIK_INLINE void frames_of(const Chain& chain, const V* q, TransformOf<V>* frame) {
    for (int i = 0; i < 9; ++i) frame[0].R[i] = splat<V>(i % 4 == 0 ? 1.0 : 0.0);
    for (int i = 0; i < 3; ++i) frame[0].p[i] = V();
    for (int j = 0; j < chain.dof; ++j) {
        frame[j + 1] = frame[j];
        compose_origin(frame[j + 1], chain.origin[j]);
        compose_joint(frame[j + 1], chain.kind[j], q[j]);
    }
}

template <class V>
MFIK_INLINE void place(const TransformOf<V>& frame, const double* local, V* point) {
    for (int i = 0; i < 3; ++i)
        point[i] =
            frame.p[i] + frame.R[3 * i] * local[0] + frame.R[3 * i + 1] * local[1] + frame.R[3 * i + 2] * local[2];
}

/// Signed distance of the outside of an intersection of slabs: `beyond` the largest distance beyond one of them, and
/// the squared length of all that are beyond.
template <class V>
MFIK_INLINE V outside_distance(const V& beyond, const V& squared) {
    return select(beyond > 0.0, square_root(squared), beyond);
}

/// Signed distance of a point to a shape [m], exact where it is below `cutoff`, else at least that.
template <class V>
MFIK_INLINE V shape_distance(const ShapeView& shape, const V* point, const V& cutoff) {
    V x[3];
    const V d[3] = {point[0] - shape.T.p[0], point[1] - shape.T.p[1], point[2] - shape.T.p[2]};
    if (shape.kind == ShapeKind::kSphere) return square_root(squared_norm3(d)) - shape.size[0];
    if (shape.kind == ShapeKind::kHalfSpace) return d[0] * shape.T.R[2] + d[1] * shape.T.R[5] + d[2] * shape.T.R[8];
    for (int i = 0; i < 3; ++i) x[i] = d[0] * shape.T.R[i] + d[1] * shape.T.R[3 + i] + d[2] * shape.T.R[6 + i];
    if (shape.kind == ShapeKind::kBox) {
        V beyond = V() - HUGE_VAL, squared = V();
        for (int i = 0; i < 3; ++i) {
            const V past = select(x[i] < 0.0, -x[i], x[i]) - shape.size[i];
            const V positive = larger_of(past, V());
            beyond = larger_of(beyond, past);
            squared += positive * positive;
        }
        // The square root is taken where it matters: it costs more than all before it.
        const V reach = larger_of(cutoff, V());
        if (!any_of((beyond <= 0.0) | (squared < reach * reach))) return splat<V>(HUGE_VAL);
        return outside_distance(beyond, squared);
    }
    if (shape.kind == ShapeKind::kCylinder) {
        const V side = square_root(x[0] * x[0] + x[1] * x[1]) - shape.size[0];
        const V end = select(x[2] < 0.0, -x[2], x[2]) - shape.size[1];
        const V positive_side = larger_of(side, V()), positive_end = larger_of(end, V());
        return outside_distance(larger_of(side, end), positive_side * positive_side + positive_end * positive_end);
    }
    if (shape.kind == ShapeKind::kCapsule) {
        const V half = splat<V>(shape.size[1]);
        const V along = select(x[2] > half, half, select(x[2] < -half, -half, x[2]));
        const V rest = x[2] - along;
        return square_root(x[0] * x[0] + x[1] * x[1] + rest * rest) - shape.size[0];
    }
    V distance = V();
    for (int lane = 0; lane < lanes_in(distance); ++lane) {
        const double at[3] = {lane_of(x[0], lane), lane_of(x[1], lane), lane_of(x[2], lane)};
        set_lane_of(distance, lane,
                    cloud_distance(shape.cloud, at, lane_of(cutoff, lane) + shape.size[0]) - shape.size[0]);
    }
    return distance;
}

/// Gradient [3] of a shape's signed distance at a point, in the base frame: a unit vector.
/// @param[in] cutoff  Above the distance, see shape_distance().
template <class V>
MFIK_INLINE void shape_gradient(const ShapeView& shape, const V* point, const V& cutoff, V* gradient) {
    V x[3], g[3] = {};
    const V d[3] = {point[0] - shape.T.p[0], point[1] - shape.T.p[1], point[2] - shape.T.p[2]};
    for (int i = 0; i < 3; ++i) x[i] = d[0] * shape.T.R[i] + d[1] * shape.T.R[3 + i] + d[2] * shape.T.R[6 + i];
    const auto absolute = [](const V& value) { return select(value < 0.0, -value, value); };
    const auto with_sign = [](const V& length, const V& of) { return select(of < 0.0, -length, length); };
    const double* size = shape.size;
    if (shape.kind == ShapeKind::kHalfSpace) {
        g[2] = splat<V>(1.0);
    } else if (shape.kind == ShapeKind::kSphere) {
        for (int i = 0; i < 3; ++i) g[i] = x[i];
    } else if (shape.kind == ShapeKind::kBox) {
        V past[3], least = V() - HUGE_VAL;  // past the faces
        for (int i = 0; i < 3; ++i) {
            past[i] = absolute(x[i]) - size[i];
            least = larger_of(least, past[i]);
        }
        for (int i = 2; i >= 0; --i) {
            const Mask<V> way_out = past[i] == least;  // of a point inside
            for (int k = 0; k < 3; ++k) g[k] = select(way_out, splat<V>(k == i ? 1.0 : 0.0), g[k]);
        }
        for (int i = 0; i < 3; ++i) g[i] = with_sign(select(least > 0.0, larger_of(past[i], V()), g[i]), x[i]);
    } else if (shape.kind == ShapeKind::kCylinder) {
        const V radius = square_root(x[0] * x[0] + x[1] * x[1]);
        const V side = radius - size[0], end = absolute(x[2]) - size[1];
        const Mask<V> off_axis = radius > 0.0, nearer_side = side >= end, outside = (side > 0.0) | (end > 0.0);
        const V one = splat<V>(1.0), per_radius = one / select(off_axis, radius, one);
        const V along_side = select(outside, larger_of(side, V()), select(nearer_side, one, V()));
        const V along_end = select(outside, larger_of(end, V()), select(nearer_side, V(), one));
        g[0] = along_side * select(off_axis, x[0] * per_radius, one);
        g[1] = along_side * x[1] * per_radius;
        g[2] = with_sign(along_end, x[2]);
    } else if (shape.kind == ShapeKind::kCapsule) {
        const V half = splat<V>(size[1]);
        g[0] = x[0], g[1] = x[1];
        g[2] = x[2] - select(x[2] > half, half, select(x[2] < -half, -half, x[2]));
    } else {
        for (int lane = 0; lane < lanes_in(g[0]); ++lane) {
            const double at[3] = {lane_of(x[0], lane), lane_of(x[1], lane), lane_of(x[2], lane)};
            std::uint32_t n = 0;
            (void)cloud_distance(shape.cloud, at, lane_of(cutoff, lane) + size[0], &n);
            const float* const from[3] = {shape.cloud.x, shape.cloud.y, shape.cloud.z};
            for (int i = 0; i < 3; ++i) set_lane_of(g[i], lane, at[i] - shape.cloud.low[i] - from[i][n]);
        }
    }
    const V length = square_root(squared_norm3(g));
    const Mask<V> known = length > 0.0;  // at the centre, any direction leads out
    const V scale = 1.0 / select(known, length, splat<V>(1.0));
    g[0] = select(known, g[0], splat<V>(1.0));
    for (int i = 0; i < 3; ++i)
        gradient[i] = scale * (g[0] * shape.T.R[3 * i] + g[1] * shape.T.R[3 * i + 1] + g[2] * shape.T.R[3 * i + 2]);
}

/// A sphere of a body, placed.
template <class V>
struct PlacedSphere {
    int index, frame;  // of the body; see LinkSpheres
    double radius;     // [m]
    V center[3];       // base frame [m]

    MFIK_INLINE PlacedSphere(const BodyView& body, const LinkSpheres& link, const TransformOf<V>* frames, int i)
        : index(i), frame(link.frame), radius(body.sphere[i][3]) {
        place(frames[frame], body.sphere[i], center);
    }
};

/// Visit the pairs of spheres that are checked against each other, and those of a sphere and a shape, that are nearer
/// than the visitor's reach() [m], which may shrink meanwhile, until it is_done(): meet(first, second, offset,
/// squared distance of the centres, sum of the radii, near) and meet(sphere, index of the shape, distance, near), with
/// the mask `near` of where they are. Links of the base are not compared with the world, from which no joint moves
/// them.
/// @param[in] frame  Of frames_of().
/// @param[in] self  Whether to compare spheres with each other.
template <class V, class Visitor>
MFIK_INLINE void visit_near(const BodyView& body, const WorldView& world, bool self, const TransformOf<V>* frame,
                            Visitor& visitor) {
    V center[kMaxLinks][3];
    for (int i = 0; i < body.num_links; ++i) place(frame[body.link[i].frame], body.link[i].center, center[i]);
    for (int k = 0; self && k < body.num_pairs; ++k) {
        const int a = body.pair[k][0], b = body.pair[k][1];
        const LinkSpheres &la = body.link[a], &lb = body.link[b];
        const V apart[3] = {center[a][0] - center[b][0], center[a][1] - center[b][1], center[a][2] - center[b][2]};
        const V reach = larger_of(visitor.reach() + (la.radius + lb.radius - body.allowance), V());
        if (!any_of(squared_norm3(apart) < reach * reach)) continue;
        for (int i = la.begin; i < la.end; ++i) {
            const PlacedSphere<V> first(body, la, frame, i);
            const V *p = first.center, *c = center[b];
            const V to_link[3] = {p[0] - c[0], p[1] - c[1], p[2] - c[2]};
            const V close = larger_of(visitor.reach() + (first.radius + lb.radius - body.allowance), V());
            if (!any_of(squared_norm3(to_link) < close * close)) continue;
            for (int j = lb.begin; j < lb.end; ++j) {
                const PlacedSphere<V> second(body, lb, frame, j);
                const V* r = second.center;
                const V offset[3] = {p[0] - r[0], p[1] - r[1], p[2] - r[2]};
                const V squared = squared_norm3(offset);
                const double radii = first.radius + second.radius - body.allowance;
                const V within = larger_of(visitor.reach() + radii, V());
                const Mask<V> near = squared < within * within;
                if (any_of(near)) visitor.meet(first, second, offset, squared, radii, near);
            }
        }
        if (visitor.is_done()) return;
    }
    for (int s = 0; s < world.size; ++s) {
        const ShapeView& shape = world.shape[s];
        for (int a = 0; a < body.num_links; ++a) {
            const LinkSpheres& link = body.link[a];
            if (link.frame == 0) continue;
            const V reach = visitor.reach() + link.radius;
            if (!any_of(shape_distance(shape, center[a], reach) < reach)) continue;
            for (int i = link.begin; i < link.end; ++i) {
                const PlacedSphere<V> sphere(body, link, frame, i);
                const V distance =
                    shape_distance(shape, sphere.center, visitor.reach() + sphere.radius) - sphere.radius;
                const Mask<V> near = distance < visitor.reach();
                if (any_of(near)) visitor.meet(sphere, s, distance, near);
            }
        }
        if (visitor.is_done()) return;
    }
}

/// Keeps the nearest two.
template <class V>
struct NearestKeeper {
    NearestOf<V> best;
    double enough;  // [m]

    MFIK_INLINE V reach() const { return best.distance; }
    MFIK_INLINE bool is_done() const { return !any_of(best.distance >= enough); }
    MFIK_INLINE void keep(const V& distance, double first, double second, const Mask<V>& near) {
        best.distance = select(near, distance, best.distance);
        best.first = select(near, splat<V>(first), best.first);
        best.second = select(near, splat<V>(second), best.second);
    }
    MFIK_INLINE void meet(const PlacedSphere<V>& first, const PlacedSphere<V>& second, const V*, const V& squared,
                          double radii, const Mask<V>& near) {
        keep(square_root(squared) - radii, first.index, second.index, near);
    }
    MFIK_INLINE void meet(const PlacedSphere<V>& sphere, int shape, const V& distance, const Mask<V>& near) {
        keep(distance, sphere.index, -1 - shape, near);
    }
};

/// The nearest pair of those that visit_near() compares.
/// @param[in] cutoff  Pairs farther apart are left out: the distance is then the cutoff [m].
/// @param[in] enough  Search ends as soon as the distance is below this everywhere [m].
template <class V>
MFIK_INLINE NearestOf<V> nearest(const BodyView& body, const WorldView& world, bool self, const TransformOf<V>* frame,
                                 double cutoff, double enough) {
    NearestKeeper<V> keeper{{splat<V>(cutoff), V() - HUGE_VAL, V() - HUGE_VAL}, enough};
    visit_near(body, world, self, frame, keeper);
    return keeper.best;
}
#endif

}  // namespace mfik
