// The world, attachments and clearance in C.
#include <algorithm>
#include <array>
#include <cmath>
#include <exception>
#include <new>

#include "solver/c_handles.hpp"

namespace {

using mfik::Pose;
using mfik::c::copy_text;

Pose pose_from(const double* values) {
    Pose pose;
    std::copy_n(values, pose.size(), pose.begin());
    return pose;
}

/// Index that add() returns; -1 with a message where it throws.
template <class Add>
int32_t index_from(char* error, std::size_t error_size, Add add) noexcept {
    try {
        return add();
    } catch (const std::bad_alloc&) {
        copy_text("out of memory", error, error_size);
    } catch (const std::exception& caught) {
        copy_text(caught.what(), error, error_size);
    }
    return -1;
}

/// Add a shape by add(world, pose).
template <class Add>
int32_t added(mfik_world* world, const char* name, const double* T_base_shape, char* error, std::size_t error_size,
              Add add) noexcept {
    if (world == nullptr || name == nullptr || T_base_shape == nullptr) {
        copy_text("world, name and T_base_shape: expected no NULL", error, error_size);
        return -1;
    }
    return index_from(error, error_size, [&] { return add(world->world, pose_from(T_base_shape)); });
}

}  // namespace

mfik_world* mfik_world_create(void) noexcept {
    try {
        return new mfik_world;
    } catch (const std::bad_alloc&) {
        return nullptr;
    }
}

void mfik_world_destroy(mfik_world* world) noexcept {
    delete world;
}

int32_t mfik_world_add_sphere(mfik_world* world, const char* name, double radius_m, const double T_base_shape[7],
                              char* error, size_t error_size) noexcept {
    return added(world, name, T_base_shape, error, error_size,
                 [&](mfik::World& to, const Pose& pose) { return to.add_sphere(name, radius_m, pose); });
}

int32_t mfik_world_add_box(mfik_world* world, const char* name, const double size_m[3], const double T_base_shape[7],
                           char* error, size_t error_size) noexcept {
    if (size_m == nullptr) {
        copy_text("size_m: expected no NULL", error, error_size);
        return -1;
    }
    return added(world, name, T_base_shape, error, error_size, [&](mfik::World& to, const Pose& pose) {
        return to.add_box(name, {size_m[0], size_m[1], size_m[2]}, pose);
    });
}

int32_t mfik_world_add_cylinder(mfik_world* world, const char* name, double radius_m, double length_m,
                                const double T_base_shape[7], char* error, size_t error_size) noexcept {
    return added(world, name, T_base_shape, error, error_size,
                 [&](mfik::World& to, const Pose& pose) { return to.add_cylinder(name, radius_m, length_m, pose); });
}

int32_t mfik_world_add_capsule(mfik_world* world, const char* name, double radius_m, double length_m,
                               const double T_base_shape[7], char* error, size_t error_size) noexcept {
    return added(world, name, T_base_shape, error, error_size,
                 [&](mfik::World& to, const Pose& pose) { return to.add_capsule(name, radius_m, length_m, pose); });
}

int32_t mfik_world_add_half_space(mfik_world* world, const char* name, const double T_base_shape[7], char* error,
                                  size_t error_size) noexcept {
    return added(world, name, T_base_shape, error, error_size,
                 [&](mfik::World& to, const Pose& pose) { return to.add_half_space(name, pose); });
}

int32_t mfik_world_add_point_cloud(mfik_world* world, const char* name, const double* points_m, size_t n,
                                   double radius_m, const double T_base_shape[7], char* error,
                                   size_t error_size) noexcept {
    if (points_m == nullptr) {
        copy_text("points_m: expected no NULL", error, error_size);
        return -1;
    }
    return added(world, name, T_base_shape, error, error_size, [&](mfik::World& to, const Pose& pose) {
        return to.add_point_cloud(name, {points_m, 3 * n}, radius_m, pose);
    });
}

mfik_status mfik_world_set_pose(mfik_world* world, int32_t shape, const double T_base_shape[7]) noexcept {
    if (world == nullptr || T_base_shape == nullptr) return MFIK_INVALID_INPUT;
    return static_cast<mfik_status>(world->world.set_pose(shape, pose_from(T_base_shape)));
}

mfik_attachments* mfik_attachments_create(const mfik_solver* solver) noexcept {
    if (solver == nullptr) return nullptr;
    try {
        return new mfik_attachments{mfik::Attachments(solver->solver)};
    } catch (const std::exception&) {
        return nullptr;
    }
}

void mfik_attachments_destroy(mfik_attachments* attachments) noexcept {
    delete attachments;
}

int32_t mfik_attachments_add(mfik_attachments* attachments, const char* name, const double* spheres_m, size_t n,
                             const char* link, const double T_link_object[7], const char* const* touching,
                             size_t num_touching, char* error, size_t error_size) noexcept {
    const bool given = attachments != nullptr && name != nullptr && spheres_m != nullptr && link != nullptr &&
                       T_link_object != nullptr && (touching != nullptr || num_touching == 0);
    if (!given || std::find(touching, touching + num_touching, nullptr) != touching + num_touching) {
        copy_text("attachments, name, spheres_m, link, T_link_object and touching: expected no NULL", error,
                  error_size);
        return -1;
    }
    return index_from(error, error_size, [&] {
        return attachments->attachments.add(name, {spheres_m, 4 * n}, link, pose_from(T_link_object),
                                            {touching, touching + num_touching});
    });
}

mfik_status mfik_attachments_set_pose(mfik_attachments* attachments, int32_t object,
                                      const double T_link_object[7]) noexcept {
    if (attachments == nullptr || T_link_object == nullptr) return MFIK_INVALID_INPUT;
    return static_cast<mfik_status>(attachments->attachments.set_pose(object, pose_from(T_link_object)));
}

mfik_status mfik_clearance_of(const mfik_solver* solver, const double* q, const mfik_world* world,
                              int32_t self_collision, const mfik_attachments* attached,
                              mfik_clearance* clearance) noexcept {
    if (solver == nullptr || q == nullptr || clearance == nullptr) return MFIK_INVALID_INPUT;
    const mfik::Clearance found = solver->solver.clearance(
        {q, static_cast<std::size_t>(solver->solver.dof())}, world == nullptr ? nullptr : &world->world,
        self_collision != 0, attached == nullptr ? nullptr : &attached->attachments);
    if (std::isnan(found.distance_m)) return MFIK_INVALID_INPUT;
    clearance->distance_m = found.distance_m;
    clearance->first = found.first;
    clearance->second = found.second;
    std::copy_n(found.gradient.begin(), found.gradient.size(), clearance->gradient);
    return MFIK_SOLVED;
}
