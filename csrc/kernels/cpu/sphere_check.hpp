// Whether configurations keep a clearance, in single precision: balls around links side by side in a register, those of
// one configuration or the same one of several; then, where they are near to something, the spheres of a link.
//
// Each comparison is made twice, with the reach lengthened and shortened by a bound of the rounding. What lies between
// the two is too close to call, and who asks turns to nearest(), in double precision.
#pragma once

#include <cstring>

#include "kernels/cpu/singles.hpp"

namespace mfik::cpu {

/// Bound of the rounding of a distance, as a share of the lengths that it is computed from: placing a sphere, taking it
/// to the frame of a shape and comparing squares are fewer than twenty roundings, each of half a unit in the last
/// place.
constexpr float kRounding = 20 * 6e-8f;

/// Beyond this bound of the rounding [m] single precision is not asked: squares might overflow.
constexpr float kLargestRounding = 1.0f;

/// Frames in single precision: R and p of each, in all lanes.
struct SingleFrames {
    float value[kMaxJoints + 1][12][kSingles];
};
/// @param[in] first  Lane of the first configuration.
MFIK_INLINE void to_single(const TransformOf<Lanes>* frame, int frames, SingleFrames& out, int first = 0) {
    using HalfSingles = float __attribute__((vector_size(kLanes * sizeof(float))));
    const auto put = [](const Lanes& from, float* to) {
        const HalfSingles half = __builtin_convertvector(from, HalfSingles);
        std::memcpy(to, &half, sizeof(half));
    };
    for (int f = 0; f < frames; ++f) {
        for (int i = 0; i < 9; ++i) put(frame[f].R[i], out.value[f][i] + first);
        for (int i = 0; i < 3; ++i) put(frame[f].p[i], out.value[f][9 + i] + first);
    }
}

enum class Collision { kNone, kSome, kTooClose };

/// Whether configurations of a body collide. Spheres are placed where a ball around their link is near to something.
class SphereCheck {
  public:
    MFIK_INLINE SphereCheck(const BodyView& body, const WorldView& world, double margin, const SingleFrames& frames)
        : body_(body), rows_(body.rows), world_(world), margin_(static_cast<float>(margin)), frames_(frames) {}

    /// Whether the configuration in a lane collides.
    /// @param[in] first_frame  Links that move with earlier frames collide with nothing.
    /// @param[in] self  Whether links may collide with each other.
    MFIK_INLINE Collision find(int lane, int first_frame, bool self) {
        float x[kBalls], y[kBalls], z[kBalls], radius[kBalls];
        float farthest = 0.0f;
        for (int l = 0; l < body_.num_links; ++l) {
            const int f = body_.link[l].frame, ball = end(l);
            const bool moves = f >= first_frame;
            const auto T = [this, f, lane](int i) { return frames_.value[f][i][lane]; };
            x[l] = y[l] = z[l] = 0.0f;
            radius[l] = moves ? rows_.ball_beside_world[l] : kNowhere;
            if (!moves) continue;
            const float at[3] = {rows_.x[ball], rows_.y[ball], rows_.z[ball]};
            x[l] = T(0) * at[0] + T(1) * at[1] + T(2) * at[2] + T(9);
            y[l] = T(3) * at[0] + T(4) * at[1] + T(5) * at[2] + T(10);
            z[l] = T(6) * at[0] + T(7) * at[1] + T(8) * at[2] + T(11);
            const float far = __builtin_fabsf(T(9)) + __builtin_fabsf(T(10)) + __builtin_fabsf(T(11));
            farthest = far > farthest ? far : farthest;
        }
        store(Singles(), x + body_.num_links);
        store(Singles(), y + body_.num_links);
        store(Singles(), z + body_.num_links);
        store(singles(kNowhere), radius + body_.num_links);
        if (!begin_at(farthest)) return Collision::kTooClose;
        const auto balls = [&](int l) { return Points{load(x + l), load(y + l), load(z + l)}; };
        for (int s = 0; s < world_.size; ++s) {
            Reach reach{};
            if (!reach_of(world_.shape[s], reach)) continue;
            for (int l = 0; l < body_.num_links; l += kSingles) {
                unsigned near = near_shape(world_.shape[s], reach, balls(l), load(radius + l));
                for (; near != 0; near &= near - 1)
                    if (link_hits(world_.shape[s], reach, l + __builtin_ctz(near), lane)) return Collision::kSome;
            }
        }
        const Reach reach = reach_of_links();
        for (int a = 0; self && a < body_.num_links; ++a) {
            for (int l = a / kSingles * kSingles; l < body_.num_links; l += kSingles) {
                unsigned near = partners(a, l) & first_bits(kSingles);
                if (near == 0) continue;
                const Points other = balls(l);
                const Points offset = {other.x - x[a], other.y - y[a], other.z - z[a]};
                near &= reach.longer(squared_length(offset), load(rows_.ball + l) + rows_.ball[a]);
                for (; near != 0; near &= near - 1)
                    if (links_hit(a, l + __builtin_ctz(near), reach, lane)) return Collision::kSome;
            }
        }
        return close_ != 0 ? Collision::kTooClose : Collision::kNone;
    }

    /// Which of the configurations in the first `count` lanes collide, bit by bit, and which are too close to call.
    struct Found {
        unsigned some, too_close;
    };
    MFIK_INLINE Found find_all(int count, bool self) {
        Points ball[kMaxLinks];
        Singles farthest = Singles();
        for (int l = 0; l < body_.num_links; ++l) {
            const auto& frame = frames_.value[body_.link[l].frame];
            const auto T = [&frame](int i) { return load(frame[i]); };
            const float at[3] = {rows_.x[end(l)], rows_.y[end(l)], rows_.z[end(l)]};
            ball[l] = {T(0) * at[0] + T(1) * at[1] + T(2) * at[2] + T(9),
                       T(3) * at[0] + T(4) * at[1] + T(5) * at[2] + T(10),
                       T(6) * at[0] + T(7) * at[1] + T(8) * at[2] + T(11)};
            farthest = larger_of(farthest, absolute(T(9)) + absolute(T(10)) + absolute(T(11)));
        }
        float far = 0.0f;
        for (int lane = 0; lane < count; ++lane) far = farthest[lane] > far ? farthest[lane] : far;
        unsigned left = first_bits(count);
        if (!begin_at(far)) return {0, left};
        const unsigned all = left;
        for (int s = 0; s < world_.size; ++s) {
            Reach reach{};
            if (!reach_of(world_.shape[s], reach)) continue;
            for (int l = 0; l < body_.num_links; ++l) {
                if (rows_.ball_beside_world[l] < 0.0f) continue;
                unsigned near = near_shape(world_.shape[s], reach, ball[l], singles(rows_.ball[l])) & left;
                for (; near != 0; near &= near - 1) {
                    const int lane = __builtin_ctz(near);
                    if (link_hits(world_.shape[s], reach, l, lane)) left &= ~(1u << lane);
                }
            }
        }
        const Reach reach = reach_of_links();
        for (int k = 0; self && k < body_.num_pairs; ++k) {
            const int a = body_.pair[k][0], b = body_.pair[k][1];
            const Points offset = {ball[b].x - ball[a].x, ball[b].y - ball[a].y, ball[b].z - ball[a].z};
            unsigned near = reach.longer(squared_length(offset), singles(rows_.ball[a] + rows_.ball[b])) & left;
            for (; near != 0; near &= near - 1) {
                const int lane = __builtin_ctz(near);
                if (links_hit(a, b, reach, lane)) left &= ~(1u << lane);
            }
        }
        return {all & ~left, close_ & left};
    }

  private:
    static constexpr int kBalls = kMaxLinks + kMaxSingles;

    /// How far two are compared: what is nearer than `reach` - `rounding` collides, what is farther than their sum
    /// does not. All are in addition to the radii of spheres [m].
    struct Reach {
        float reach, rounding;

        /// Which of the points at squared distances are within the longer reach of these radii, or the shorter one.
        [[nodiscard]] MFIK_INLINE unsigned longer(const Singles& squared, const Singles& radius) const {
            return less(squared, signed_square(radius + (reach + rounding)));
        }
        [[nodiscard]] MFIK_INLINE unsigned shorter(const Singles& squared, const Singles& radius) const {
            return less(squared, signed_square(radius + (reach - rounding)));
        }
    };

    /// Begin with frames whose origins are no farther from the base than this, each coordinate added [m]: false where
    /// single precision could take depths for distances.
    MFIK_INLINE bool begin_at(float farthest) {
        close_ = 0;
        extent_ = rows_.extent + farthest + __builtin_fabsf(margin_);
        const float least = rows_.smallest + (margin_ < 0.0f ? margin_ : 0.0f);
        const float rounding = 2.0f * kRounding * extent_;
        return least > rounding && rounding < kLargestRounding;
    }

    /// False, and everything too close, where single precision is not asked.
    MFIK_INLINE bool reach_of(const ShapeView& shape, Reach& reach) {
        reach = {margin_ + shape.single.radius, kRounding * (extent_ + shape.single.extent)};
        const bool is_asked = reach.rounding < kLargestRounding;
        if (!is_asked) close_ = ~0u;
        return is_asked;
    }
    [[nodiscard]] MFIK_INLINE Reach reach_of_links() const {
        return {margin_ - static_cast<float>(body_.allowance), 2.0f * kRounding * extent_};
    }

    /// Spheres [begin, end) of a link in the rows.
    MFIK_INLINE int begin(int link) const { return body_.link[link].begin + link; }
    MFIK_INLINE int end(int link) const { return body_.link[link].end + link; }
    /// Bits of links from l on: they are checked against a.
    MFIK_INLINE unsigned partners(int a, int l) const {
        return static_cast<unsigned>(rows_.partners[a][l / 64] >> (l % 64));
    }
    /// Spheres of a link from row i on, in the configuration of a lane.
    MFIK_INLINE Points placed(int link, int i, int lane) const {
        const auto& frame = frames_.value[body_.link[link].frame];
        const auto T = [&frame, lane](int k) { return frame[k][lane]; };
        const Points at = {load(rows_.x + i), load(rows_.y + i), load(rows_.z + i)};
        return {T(0) * at.x + T(1) * at.y + T(2) * at.z + T(9), T(3) * at.x + T(4) * at.y + T(5) * at.z + T(10),
                T(6) * at.x + T(7) * at.y + T(8) * at.z + T(11)};
    }

    /// Which balls are near to a shape.
    MFIK_INLINE static unsigned near_shape(const ShapeView& shape, const Reach& reach, const Points& ball,
                                           const Singles& radius) {
        if (shape.kind == ShapeKind::kPointCloud) {
            return less(cloud_bounds(shape.cloud, to_frame(shape.single, ball)).lower,
                        radius + (reach.reach + reach.rounding));
        }
        return reach.longer(squared_distance(shape, ball), radius);
    }

    /// Whether a sphere of a link is nearer to a shape than the margin.
    MFIK_INLINE bool link_hits(const ShapeView& shape, const Reach& reach, int link, int lane) {
        for (int i = begin(link); i < end(link); i += kSingles) {
            const unsigned inside = first_bits(end(link) - i);
            const Points at = placed(link, i, lane);
            if (shape.kind == ShapeKind::kPointCloud ? hits_cloud(shape, reach, at, i, inside, lane)
                                                     : hits_solid(shape, reach, at, i, inside, lane))
                return true;
        }
        return false;
    }

    /// Whether any of the spheres from row i on that are `inside` is nearer to a shape but a cloud than the margin.
    MFIK_INLINE bool hits_solid(const ShapeView& shape, const Reach& reach, const Points& at, int i, unsigned inside,
                                int lane) {
        const Singles squared = squared_distance(shape, at), radius = load(rows_.radius + i);
        if (!(reach.longer(squared, radius) & inside)) return false;
        if (reach.shorter(squared, radius) & inside) return true;
        close_ |= 1u << lane;
        return false;
    }

    MFIK_INLINE bool hits_cloud(const ShapeView& shape, const Reach& reach, const Points& from_base, int i,
                                unsigned inside, int lane) {
        const Points at = to_frame(shape.single, from_base);
        const Bounds bounds = cloud_bounds(shape.cloud, at);
        const Singles radius = load(rows_.radius + i);
        if (less(bounds.upper, radius + (reach.reach - reach.rounding)) & inside) return true;
        unsigned near = less(bounds.lower, radius + (reach.reach + reach.rounding)) & inside;
        for (; near != 0; near &= near - 1) {
            const int k = __builtin_ctz(near);
            const float point[3] = {at.x[k], at.y[k], at.z[k]};
            if (hits_points(shape.cloud, point, rows_.radius[i + k] + reach.reach, reach.rounding, lane)) return true;
        }
        return false;
    }

    /// Whether any point of a cloud lies within a distance of `point`, which counts from the corner of the grid.
    MFIK_INLINE bool hits_points(const CloudView& cloud, const float* point, float distance, float rounding, int lane) {
        const float within = distance + rounding, sure = distance - rounding;
        const Singles within2 = singles(within * within), sure2 = singles(sure * sure);
        const float voxel = static_cast<float>(cloud.voxel);
        int first[3], last[3];
        for (int i = 0; i < 3; ++i) {
            first[i] = clamp_index((point[i] - within) / voxel, cloud.size[i]);
            last[i] = clamp_index((point[i] + within) / voxel, cloud.size[i]);
        }
        for (int k = first[2]; k <= last[2]; ++k) {
            const float dz = beyond_voxel(k, voxel, point[2]);
            for (int j = first[1]; j <= last[1]; ++j) {
                const float dy = beyond_voxel(j, voxel, point[1]);
                if (dz * dz + dy * dy > within * within) continue;
                const int row = (k * cloud.size[1] + j) * cloud.size[0];
                // Beyond the end of the row are other points, or infinite ones.
                for (std::uint32_t n = cloud.begin[row + first[0]]; n < cloud.begin[row + last[0] + 1]; n += kSingles) {
                    const Singles squared = squared_length(
                        {load(cloud.x + n) - point[0], load(cloud.y + n) - point[1], load(cloud.z + n) - point[2]});
                    if (less(squared, within2) == 0) continue;
                    if (less(squared, sure2) != 0) return true;
                    close_ |= 1u << lane;
                }
            }
        }
        return false;
    }

    /// Distance along an axis of a place from voxel k.
    static MFIK_INLINE float beyond_voxel(int k, float voxel, float place) {
        const float before = static_cast<float>(k) * voxel - place, behind = -before - voxel;
        return before > 0.0f ? before : (behind > 0.0f ? behind : 0.0f);
    }

    /// Whether spheres of two links are nearer to each other than the reach: those of the one with fewer that are near
    /// the ball of the other one, against all of that.
    MFIK_INLINE bool links_hit(int a, int b, const Reach& reach, int lane) {
        if (end(a) - begin(a) > end(b) - begin(b)) {
            const int more = a;
            a = b, b = more;
        }
        const Points ball = placed(b, end(b), lane);
        for (int c = begin(a); c < end(a); c += kSingles) {
            const Points at = placed(a, c, lane);
            const Points from_ball = {at.x - ball.x[0], at.y - ball.y[0], at.z - ball.z[0]};
            const unsigned near = reach.longer(squared_length(from_ball), load(rows_.radius + c) + rows_.ball[b]) &
                                  first_bits(end(a) - c);
            for (int j = begin(b); near != 0 && j < end(b); j += kSingles) {
                const Points other = placed(b, j, lane);
                const Singles radius = load(rows_.radius + j);
                const unsigned inside = first_bits(end(b) - j);
                for (unsigned rest = near; rest != 0; rest &= rest - 1) {
                    const int k = __builtin_ctz(rest);
                    const Singles squared = squared_length({other.x - at.x[k], other.y - at.y[k], other.z - at.z[k]});
                    const Singles radii = radius + rows_.radius[c + k];
                    if (!(reach.longer(squared, radii) & inside)) continue;
                    if (reach.shorter(squared, radii) & inside) return true;
                    close_ |= 1u << lane;
                }
            }
        }
        return false;
    }

    const BodyView& body_;
    const SphereRows& rows_;
    const WorldView& world_;
    float margin_;  // [m]
    const SingleFrames& frames_;
    float extent_ = 0.0f;  // no sphere reaches farther from the base, and the margin [m]
    unsigned close_ = 0;   // lanes where something is as near as the margin but for rounding
};

/// Whether the configuration in a lane keeps the margin, in double precision where single leaves it open.
/// @param[in] frame  Of frames_of(), dof + 1 of them, and the same in single precision.
MFIK_INLINE bool keeps_margin(const BodyView& body, const WorldView& world, bool self, double margin,
                              const TransformOf<Lanes>* frame, const SingleFrames& singles, int dof, int lane) {
    const Collision found = SphereCheck(body, world, margin, singles).find(lane, 0, self);
    if (found != Collision::kTooClose) return found == Collision::kNone;
    Transform exact[kMaxJoints + 1];
    for (int f = 0; f <= dof; ++f) {
        for (int i = 0; i < 9; ++i) exact[f].R[i] = frame[f].R[i][lane];
        for (int i = 0; i < 3; ++i) exact[f].p[i] = frame[f].p[i][lane];
    }
    return nearest(body, world, self, exact, margin, margin).distance >= margin;
}

}  // namespace mfik::cpu
