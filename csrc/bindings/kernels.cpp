// Kernels on raw pointers: mfik/ops checks shapes, dtypes and devices before it calls.
#include "kernels/kernels.hpp"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "bindings/bindings.hpp"
#include "kernels/cpu/collision_kernels.hpp"
#include "kernels/cpu/path_kernels.hpp"
#include "kernels/cpu/row_kernels.hpp"
#include "kernels/cpu/solver_kernels.hpp"
#include "kernels/philox.hpp"
#include "kernels/refine.hpp"
#include "solver/networks/network_kernels.hpp"

namespace py = pybind11;

namespace mfik {
namespace {

using Address = std::uintptr_t;

template <typename T>
T* pointer(Address address) {
    return reinterpret_cast<T*>(address);
}

/// Call body(T()) with the element type, without the GIL.
template <typename Body>
auto with_type(bool is_double, const Body& body) {
    const py::gil_scoped_release release;
    return is_double ? body(double()) : body(float());
}

Chain make_chain(Address origins, const std::vector<int>& kinds) {
    if (kinds.empty() || kinds.size() > kMaxJoints) throw std::invalid_argument("kinds: expected 1 to 16 joints");
    Chain chain;
    chain.dof = static_cast<int>(kinds.size());
    const double* from = pointer<const double>(origins);
    for (int j = 0; j <= chain.dof; ++j)
        for (int k = 0; k < 12; ++k) chain.origin[j][k] = from[12 * j + k];
    for (int j = 0; j < chain.dof; ++j) {
        if (kinds[j] < 0 || kinds[j] > 2) throw std::invalid_argument("kinds: expected 0, 1 or 2");
        chain.kind[j] = static_cast<JointKind>(kinds[j]);
    }
    return chain;
}

template <typename T>
AdaptiveWeightArgs<T> adaptive_weight_args(Address q, Address q_target, Address weight, std::int64_t n,
                                           std::int64_t dof, double c, double p) {
    return {pointer<const T>(q), pointer<const T>(q_target), pointer<T>(weight), n, dof,
            static_cast<T>(c),   static_cast<T>(p)};
}

/// `out`: in the order of the struct.
template <typename T>
BatchOut<T> batch_out(const std::array<Address, 7>& out) {
    return {pointer<T>(out[0]), pointer<T>(out[1]), pointer<T>(out[2]), pointer<T>(out[3]),
            pointer<T>(out[4]), pointer<T>(out[5]), pointer<T>(out[6])};
}

/// What `sample_batch` and `draw_batch` have in common, in the order in which mfik/ops passes it.
struct BatchSettings {
    std::int64_t batch;
    BatchKey key;
    double c;
    double p;
};

BatchSettings batch_settings(const py::tuple& values) {
    return {values[0].cast<std::int64_t>(),
            {values[1].cast<std::uint64_t>(), pointer<const std::int64_t>(values[2].cast<Address>()),
             values[3].cast<std::uint32_t>(), values[4].cast<std::int64_t>(), values[5].cast<std::int64_t>()},
            values[6].cast<double>(),
            values[7].cast<double>()};
}

/// `in`: q, target_pose, q_target, r, index (0: none).
template <typename T>
SampleBatchArgs<T> sample_batch_args(const std::array<Address, 5>& in, const std::array<Address, 7>& out,
                                     std::int64_t rows, std::int64_t dof, const BatchSettings& settings) {
    return {pointer<const T>(in[0]),
            pointer<const T>(in[1]),
            pointer<const T>(in[2]),
            pointer<const T>(in[3]),
            pointer<const std::int64_t>(in[4]),
            batch_out<T>(out),
            settings.key,
            rows,
            settings.batch,
            dof,
            static_cast<T>(settings.c),
            static_cast<T>(settings.p)};
}

template <typename T>
DrawBatchArgs<T> draw_batch_args(const std::array<Address, 7>& out, const BatchSettings& settings) {
    return {batch_out<T>(out), settings.key, settings.batch, static_cast<T>(settings.c), static_cast<T>(settings.p)};
}

/// `arrays`: u, v, derivative, r, t, weight (0: none), loss, squared, residual.
template <typename T>
WeightedResidualArgs<T> weighted_residual_args(const std::array<Address, 9>& arrays, std::int64_t n, std::int64_t dof,
                                               std::int64_t num_jvp, double clip, double c, double p) {
    return {pointer<const T>(arrays[0]),
            pointer<const T>(arrays[1]),
            pointer<const T>(arrays[2]),
            pointer<const T>(arrays[3]),
            pointer<const T>(arrays[4]),
            pointer<const T>(arrays[5]),
            pointer<T>(arrays[6]),
            pointer<T>(arrays[7]),
            pointer<T>(arrays[8]),
            n,
            dof,
            num_jvp,
            static_cast<T>(clip),
            static_cast<T>(c),
            static_cast<T>(p)};
}

/// `arrays`: loss_gradient, residual, squared, weight (0: none), u_gradient.
template <typename T>
WeightedResidualBackwardArgs<T> weighted_residual_backward_args(const std::array<Address, 5>& arrays, std::int64_t n,
                                                                std::int64_t dof, double c, double p) {
    return {pointer<const T>(arrays[0]),
            pointer<const T>(arrays[1]),
            pointer<const T>(arrays[2]),
            pointer<const T>(arrays[3]),
            pointer<T>(arrays[4]),
            n,
            dof,
            static_cast<T>(c),
            static_cast<T>(p)};
}

/// `in`: q, target_pose; `out`: q_out, converged, iterations.
template <typename T>
RefineArgs<T> refine_args(const std::array<Address, 2>& in, const std::array<Address, 3>& out, std::int64_t n,
                          int max_iterations, double tol_pos_m, double tol_rot_rad) {
    return {pointer<const T>(in[0]),
            pointer<const T>(in[1]),
            pointer<T>(out[0]),
            pointer<bool>(out[1]),
            pointer<std::int32_t>(out[2]),
            n,
            max_iterations,
            tol_pos_m,
            tol_rot_rad};
}

/// `in`: q, target_pose, seeds; `out`: q_out, pos_error, rot_error, converged, iterations, attempts.
template <typename T>
SolveArgs<T> solve_args(const std::array<Address, 3>& in, const std::array<Address, 6>& out, std::int64_t n,
                        std::int64_t num_seeds, int max_iterations, double tol_pos_m, double tol_rot_rad) {
    return {pointer<const T>(in[0]),
            pointer<const T>(in[1]),
            pointer<const T>(in[2]),
            pointer<T>(out[0]),
            pointer<T>(out[1]),
            pointer<T>(out[2]),
            pointer<bool>(out[3]),
            pointer<std::int32_t>(out[4]),
            pointer<std::int32_t>(out[5]),
            n,
            num_seeds,
            max_iterations,
            tol_pos_m,
            tol_rot_rad};
}

Chain make_chain(Address origins, const std::vector<int>& kinds, Address lower, Address upper) {
    Chain chain = make_chain(origins, kinds);
    for (int j = 0; j < chain.dof; ++j) {
        chain.lower[j] = pointer<const double>(lower)[j];
        chain.upper[j] = pointer<const double>(upper)[j];
    }
    return chain;
}

void bind_cpu_batches(py::module_& m) {
    m.def("adaptive_weight_cpu", [](bool is_double, Address q, Address q_target, Address weight, std::int64_t n,
                                    std::int64_t dof, double c, double p, int max_threads) {
        with_type(is_double, [&](auto type) {
            using T = decltype(type);
            cpu::adaptive_weight(adaptive_weight_args<T>(q, q_target, weight, n, dof, c, p), max_threads);
        });
    });
    m.def("sample_batch_cpu", [](bool is_double, const std::array<Address, 5>& in, const std::array<Address, 7>& out,
                                 std::int64_t rows, std::int64_t dof, const py::tuple& values, int max_threads) {
        const BatchSettings settings = batch_settings(values);
        return with_type(is_double, [&](auto type) {
            using T = decltype(type);
            return cpu::sample_batch(sample_batch_args<T>(in, out, rows, dof, settings), max_threads);
        });
    });
    m.def("draw_batch_cpu",
          [](bool is_double, Address origins, const std::vector<int>& kinds, Address lower, Address upper,
             const std::array<Address, 7>& out, const py::tuple& values, int max_threads) {
              const Chain chain = make_chain(origins, kinds, lower, upper);
              const BatchSettings settings = batch_settings(values);
              with_type(is_double, [&](auto type) {
                  using T = decltype(type);
                  cpu::draw_batch(chain, draw_batch_args<T>(out, settings), max_threads);
              });
          });
    m.def("weighted_residual_loss_cpu", [](bool is_double, const std::array<Address, 9>& arrays, std::int64_t n,
                                           std::int64_t dof, std::int64_t num_jvp, double clip, double c, double p,
                                           int max_threads) {
        with_type(is_double, [&](auto type) {
            using T = decltype(type);
            cpu::weighted_residual_loss(weighted_residual_args<T>(arrays, n, dof, num_jvp, clip, c, p), max_threads);
        });
    });
    m.def("weighted_residual_loss_backward_cpu", [](bool is_double, const std::array<Address, 5>& arrays,
                                                    std::int64_t n, std::int64_t dof, double c, double p,
                                                    int max_threads) {
        with_type(is_double, [&](auto type) {
            using T = decltype(type);
            cpu::weighted_residual_loss_backward(weighted_residual_backward_args<T>(arrays, n, dof, c, p), max_threads);
        });
    });
}

void bind_cpu_robots(py::module_& m) {
    m.def("fk_cpu", [](bool is_double, Address q, Address origins, const std::vector<int>& kinds, Address pose,
                       std::int64_t n, int max_threads) {
        const Chain chain = make_chain(origins, kinds);
        with_type(is_double, [&](auto type) {
            using T = decltype(type);
            cpu::fk(chain, FkArgs<T>{pointer<const T>(q), pointer<T>(pose), n}, max_threads);
        });
    });
    m.def("jacobian_cpu", [](bool is_double, Address q, Address origins, const std::vector<int>& kinds, Address jac,
                             std::int64_t n, int max_threads) {
        const Chain chain = make_chain(origins, kinds);
        with_type(is_double, [&](auto type) {
            using T = decltype(type);
            cpu::jacobian(chain, JacobianArgs<T>{pointer<const T>(q), pointer<T>(jac), n}, max_threads);
        });
    });
    m.def("fk_error_cpu",
          [](bool is_double, const std::array<Address, 2>& in, Address origins, const std::vector<int>& kinds,
             const std::array<Address, 2>& out, std::int64_t n, int max_threads) {
              const Chain chain = make_chain(origins, kinds);
              with_type(is_double, [&](auto type) {
                  using T = decltype(type);
                  const FkErrorArgs<T> args{pointer<const T>(in[0]), pointer<const T>(in[1]), pointer<T>(out[0]),
                                            pointer<T>(out[1]), n};
                  cpu::fk_error(chain, args, max_threads);
              });
          });
    m.def("refine_cpu",
          [](bool is_double, const std::array<Address, 2>& in, Address origins, const std::vector<int>& kinds,
             Address lower, Address upper, const std::array<Address, 3>& out, std::int64_t n, int max_iterations,
             double tol_pos_m, double tol_rot_rad, int max_threads) {
              const Chain chain = make_chain(origins, kinds, lower, upper);
              with_type(is_double, [&](auto type) {
                  using T = decltype(type);
                  cpu::refine(chain, refine_args<T>(in, out, n, max_iterations, tol_pos_m, tol_rot_rad), max_threads);
              });
          });
    m.def("geometry_cpu",
          [](bool is_double, const std::array<Address, 2>& in, Address origins, const std::vector<int>& kinds,
             Address lower, Address upper, const std::array<Address, 2>& out, std::int64_t n, int max_threads) {
              const Geometry geometry(make_chain(origins, kinds, lower, upper));
              with_type(is_double, [&](auto type) {
                  using T = decltype(type);
                  cpu::geometry(geometry,
                                GeometryArgs<T>{pointer<const T>(in[0]), pointer<const T>(in[1]), pointer<T>(out[0]),
                                                pointer<T>(out[1]), n},
                                max_threads);
              });
          });
    m.def("geometry_backward_cpu",
          [](bool is_double, const std::array<Address, 4>& in, Address origins, const std::vector<int>& kinds,
             Address lower, Address upper, Address by_q, std::int64_t n, int max_threads) {
              const Geometry geometry(make_chain(origins, kinds, lower, upper));
              with_type(is_double, [&](auto type) {
                  using T = decltype(type);
                  cpu::geometry_backward(
                      geometry,
                      GeometryBackwardArgs<T>{pointer<const T>(in[0]), pointer<const T>(in[1]), pointer<const T>(in[2]),
                                              pointer<const T>(in[3]), pointer<T>(by_q), n},
                      max_threads);
              });
          });
    m.def("solve_cpu",
          [](bool is_double, const std::array<Address, 3>& in, Address origins, const std::vector<int>& kinds,
             Address lower, Address upper, const std::array<Address, 6>& out, std::int64_t n, std::int64_t num_seeds,
             int max_iterations, double tol_pos_m, double tol_rot_rad, int max_threads) {
              const Chain chain = make_chain(origins, kinds, lower, upper);
              with_type(is_double, [&](auto type) {
                  using T = decltype(type);
                  cpu::solve(chain, solve_args<T>(in, out, n, num_seeds, max_iterations, tol_pos_m, tol_rot_rad),
                             max_threads);
              });
          });
}

#ifdef MFIK_HAS_CUDA
void bind_cuda(py::module_& m) {
    m.def("cuda_problem", &cuda::problem);
    m.def("adaptive_weight_cuda", [](bool is_double, Address q, Address q_target, Address weight, std::int64_t n,
                                     std::int64_t dof, double c, double p, std::intptr_t stream) {
        with_type(is_double, [&](auto type) {
            using T = decltype(type);
            cuda::adaptive_weight(adaptive_weight_args<T>(q, q_target, weight, n, dof, c, p), stream);
        });
    });
    m.def("sample_batch_cuda", [](bool is_double, const std::array<Address, 5>& in, const std::array<Address, 7>& out,
                                  std::int64_t rows, std::int64_t dof, const py::tuple& values, std::intptr_t stream) {
        const BatchSettings settings = batch_settings(values);
        with_type(is_double, [&](auto type) {
            using T = decltype(type);
            cuda::sample_batch(sample_batch_args<T>(in, out, rows, dof, settings), stream);
        });
    });
    m.def("draw_batch_cuda",
          [](bool is_double, Address origins, const std::vector<int>& kinds, Address lower, Address upper,
             const std::array<Address, 7>& out, const py::tuple& values, std::intptr_t stream) {
              const Chain chain = make_chain(origins, kinds, lower, upper);
              const BatchSettings settings = batch_settings(values);
              with_type(is_double, [&](auto type) {
                  using T = decltype(type);
                  cuda::draw_batch(chain, draw_batch_args<T>(out, settings), stream);
              });
          });
    m.def("weighted_residual_loss_cuda",
          [](bool is_double, const std::array<Address, 9>& arrays, std::int64_t n, std::int64_t dof,
             std::int64_t num_jvp, double clip, double c, double p, std::intptr_t stream) {
              with_type(is_double, [&](auto type) {
                  using T = decltype(type);
                  cuda::weighted_residual_loss(weighted_residual_args<T>(arrays, n, dof, num_jvp, clip, c, p), stream);
              });
          });
    m.def(
        "weighted_residual_loss_backward_cuda", [](bool is_double, const std::array<Address, 5>& arrays, std::int64_t n,
                                                   std::int64_t dof, double c, double p, std::intptr_t stream) {
            with_type(is_double, [&](auto type) {
                using T = decltype(type);
                cuda::weighted_residual_loss_backward(weighted_residual_backward_args<T>(arrays, n, dof, c, p), stream);
            });
        });
    m.def("fk_cuda", [](bool is_double, Address q, Address origins, const std::vector<int>& kinds, Address pose,
                        std::int64_t n, std::intptr_t stream) {
        const Chain chain = make_chain(origins, kinds);
        with_type(is_double, [&](auto type) {
            using T = decltype(type);
            cuda::fk(chain, FkArgs<T>{pointer<const T>(q), pointer<T>(pose), n}, stream);
        });
    });
    m.def("jacobian_cuda", [](bool is_double, Address q, Address origins, const std::vector<int>& kinds, Address jac,
                              std::int64_t n, std::intptr_t stream) {
        const Chain chain = make_chain(origins, kinds);
        with_type(is_double, [&](auto type) {
            using T = decltype(type);
            cuda::jacobian(chain, JacobianArgs<T>{pointer<const T>(q), pointer<T>(jac), n}, stream);
        });
    });
    m.def("fk_error_cuda",
          [](bool is_double, const std::array<Address, 2>& in, Address origins, const std::vector<int>& kinds,
             const std::array<Address, 2>& out, std::int64_t n, std::intptr_t stream) {
              const Chain chain = make_chain(origins, kinds);
              with_type(is_double, [&](auto type) {
                  using T = decltype(type);
                  const FkErrorArgs<T> args{pointer<const T>(in[0]), pointer<const T>(in[1]), pointer<T>(out[0]),
                                            pointer<T>(out[1]), n};
                  cuda::fk_error(chain, args, stream);
              });
          });
    m.def("refine_cuda",
          [](bool is_double, const std::array<Address, 2>& in, Address origins, const std::vector<int>& kinds,
             Address lower, Address upper, const std::array<Address, 3>& out, std::int64_t n, int max_iterations,
             double tol_pos_m, double tol_rot_rad, std::intptr_t stream) {
              const Chain chain = make_chain(origins, kinds, lower, upper);
              with_type(is_double, [&](auto type) {
                  using T = decltype(type);
                  cuda::refine(chain, refine_args<T>(in, out, n, max_iterations, tol_pos_m, tol_rot_rad), stream);
              });
          });
    m.def("solve_cuda", [](bool is_double, const std::array<Address, 3>& in, Address origins,
                           const std::vector<int>& kinds, Address lower, Address upper,
                           const std::array<Address, 6>& out, std::int64_t n, std::int64_t num_seeds,
                           int max_iterations, double tol_pos_m, double tol_rot_rad, std::intptr_t stream) {
        const Chain chain = make_chain(origins, kinds, lower, upper);
        with_type(is_double, [&](auto type) {
            using T = decltype(type);
            cuda::solve(chain, solve_args<T>(in, out, n, num_seeds, max_iterations, tol_pos_m, tol_rot_rad), stream);
        });
    });
}
#endif

}  // namespace

void bind_kernels(py::module_& m) {
    bind_cpu_batches(m);
    bind_cpu_robots(m);
#ifdef MFIK_HAS_CUDA
    bind_cuda(m);
    m.attr("has_cuda") = true;
#else
    m.attr("has_cuda") = false;
#endif
    m.def(
        "isa",
        [] {
            py::dict isa;
            isa["collision"] = cpu::kernels<cpu::CollisionKernels>().isa;
            isa["lanes"] = cpu::kernels<cpu::SolverKernels>().isa;
            isa["networks"] = cpu::kernels<cpu::NetworkKernels>().isa;
            isa["paths"] = cpu::kernels<cpu::PathKernels>().isa;
            isa["training"] = cpu::kernels<cpu::RowKernels>().isa;
            return isa;
        },
        "Instruction set that each family of kernels runs on: \"avx512\", \"avx2\" or \"baseline\".");
    // What the tests hold against Random123 and the Python constants.
    m.def("philox", [](const std::array<std::uint32_t, 4>& counter, std::uint64_t key) {
        const Philox4 out = philox4x32_10({counter[0], counter[1], counter[2], counter[3]}, key);
        return std::array<std::uint32_t, 4>{out.x0, out.x1, out.x2, out.x3};
    });
    m.attr("min_remaining") = kMinRemaining;
    m.attr("damping_gain") = kDampingGain;
    m.attr("damping_floor") = kDampingFloor;
}

}  // namespace mfik
