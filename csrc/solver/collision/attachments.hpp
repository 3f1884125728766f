// What attachments consist of, for the sources of the solver.
#pragma once

#include <array>
#include <vector>

#include "mfik/collision.hpp"
#include "solver/core.hpp"

namespace mfik {

struct Attachments::Impl {
    /// An object: the last links of the body, in their order.
    struct Object {
        std::size_t link;                            // of the body
        Transform T_frame_holder;                    // of the link that holds it
        std::vector<std::array<double, 4>> spheres;  // centre in the object's frame and radius [m]
    };

    explicit Impl(const Core& of) : core(&of), robot(of.bundle.robot) {}

    const Core* core;        // by which the solver is known
    RobotDescription robot;  // the solver's, whose body has the objects, too
    std::vector<Object> objects;
};

/// What the solver reads of attachments.
struct AttachmentsAccess {
    /// Whether they are none, or were made for this solver.
    static bool fit(const Core& core, const Attachments* attached) noexcept {
        return attached == nullptr || (attached->impl_ != nullptr && attached->impl_->core == &core &&
                                       attached->impl_->robot.chain.dof == core.chain().dof);
    }
    /// The body with what is attached, which fits.
    static const BodyDescription& body(const Core& core, const Attachments* attached) noexcept {
        return attached == nullptr ? core.bundle.robot.body : attached->impl_->robot.body;
    }
};

}  // namespace mfik
