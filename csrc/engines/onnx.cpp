#include "mfik/onnx.hpp"

#include <onnxruntime_c_api.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <utility>

#include "engines/model_file.hpp"

namespace mfik {
namespace {

constexpr int kPoseSize = 7;

/// An object of ONNX Runtime, released by the function of the interface that its type names.
template <class T>
class Handle {
  public:
    Handle(const OrtApi& api, void (ORT_API_CALL* OrtApi::*release)(T*)) : release_(api.*release) {}
    Handle(Handle&& other) noexcept : value_(std::exchange(other.value_, nullptr)), release_(other.release_) {}
    Handle& operator=(Handle&&) = delete;
    ~Handle() { release_(value_); }
    T* get() const noexcept { return value_; }
    T** out() noexcept { return &value_; }

  private:
    T* value_ = nullptr;
    void(ORT_API_CALL* release_)(T*);
};

/// @throw Error  With ONNX Runtime's message.
void check(const OrtApi& api, const std::string& file, OrtStatus* status) {
    if (status == nullptr) return;
    const std::string message = api.GetErrorMessage(status);
    api.ReleaseStatus(status);
    throw Error(file + ": ONNX Runtime cannot use it (" + message + "); export it again");
}

class OnnxEngine final : public Engine {
  public:
    OnnxEngine(const OrtApi& api, const std::string& file)
        : api_(api),
          environment_(api, &OrtApi::ReleaseEnv),
          memory_(api, &OrtApi::ReleaseMemoryInfo),
          session_(api, &OrtApi::ReleaseSession) {
        Handle<OrtSessionOptions> options(api, &OrtApi::ReleaseSessionOptions);
        check(api, file, api.CreateEnv(ORT_LOGGING_LEVEL_ERROR, "mfik", environment_.out()));
        check(api, file, api.CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, memory_.out()));
        check(api, file, api.CreateSessionOptions(options.out()));
        check(api, file, api.SetIntraOpNumThreads(options.get(), 1));
        const std::filesystem::path path(file);  // wide characters on Windows
        check(api, file, api.CreateSession(environment_.get(), path.c_str(), options.get(), session_.out()));
        dof_ = read_dof(file, metadata(file));
    }

    [[nodiscard]] std::size_t scratch_size(int rows) const noexcept override {
        return static_cast<std::size_t>(rows) * kPoseSize;
    }

    void evaluate(int rows, const float* q, const float* poses, int num_poses, float* u,
                  float* scratch) const noexcept override {
        const std::ptrdiff_t size = static_cast<std::ptrdiff_t>(rows) * dof_;
        if (num_poses == 1) {  // the graph takes a pose for every row
            for (std::ptrdiff_t row = 0; row < rows; ++row) std::copy_n(poses, kPoseSize, scratch + row * kPoseSize);
            poses = scratch;
        }
        if (run(rows, q, poses, u)) {  // u holds q_solution
            std::transform(u, u + size, q, u, [](float end, float start) { return end - start; });
        } else {
            std::fill_n(u, size, std::numeric_limits<float>::quiet_NaN());
        }
    }

  private:
    std::string metadata(const std::string& file) const {
        Handle<OrtModelMetadata> description(api_, &OrtApi::ReleaseModelMetadata);
        OrtAllocator* allocator = nullptr;  // of ONNX Runtime
        char* text = nullptr;
        check(api_, file, api_.GetAllocatorWithDefaultOptions(&allocator));
        check(api_, file, api_.SessionGetModelMetadata(session_.get(), description.out()));
        check(api_, file, api_.ModelMetadataLookupCustomMetadataMap(description.get(), allocator, "mfik", &text));
        if (text == nullptr) return {};
        std::string result(text);
        allocator->Free(allocator, text);
        return result;
    }

    bool succeeded(OrtStatus* status) const noexcept {
        if (status != nullptr) api_.ReleaseStatus(status);
        return status == nullptr;
    }

    /// Wrap `values` [rows, columns] in a tensor. ONNX Runtime takes no const memory; it only reads inputs.
    bool wrap(const float* values, int rows, int columns, Handle<OrtValue>& tensor) const noexcept {
        const std::array<std::int64_t, 2> shape{rows, columns};
        const std::size_t bytes = static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns) * sizeof(float);
        return succeeded(api_.CreateTensorWithDataAsOrtValue(memory_.get(), const_cast<float*>(values), bytes,
                                                             shape.data(), shape.size(),
                                                             ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, tensor.out()));
    }

    bool run(int rows, const float* q, const float* poses, float* q_solution) const noexcept {
        Handle<OrtValue> q_ref(api_, &OrtApi::ReleaseValue), pose(api_, &OrtApi::ReleaseValue);
        Handle<OrtValue> solution(api_, &OrtApi::ReleaseValue);
        if (!wrap(q, rows, dof_, q_ref) || !wrap(poses, rows, kPoseSize, pose) ||
            !wrap(q_solution, rows, dof_, solution)) {
            return false;
        }
        const std::array<const char*, 2> inputs{"q_ref", "target_pose"};
        const std::array<const char*, 1> outputs{"q_solution"};
        const std::array<const OrtValue*, 2> values{q_ref.get(), pose.get()};
        return succeeded(api_.Run(session_.get(), nullptr, inputs.data(), values.data(), inputs.size(), outputs.data(),
                                  outputs.size(), solution.out()));
    }

    const OrtApi& api_;
    Handle<OrtEnv> environment_;
    Handle<OrtMemoryInfo> memory_;
    Handle<OrtSession> session_;
    int dof_ = 0;
};

}  // namespace

std::unique_ptr<const Engine> load_onnx(const std::string& path) {
    const std::string file = find_model_file(path, "model.onnx");
    const OrtApiBase* base = OrtGetApiBase();
    const OrtApi* api = base->GetApi(ORT_API_VERSION);
    if (api == nullptr) {
        throw Error(file + ": expected ONNX Runtime 1." + std::to_string(ORT_API_VERSION) + " or newer, got " +
                    base->GetVersionString() + "; link a newer one, or build mfik with its headers");
    }
    return std::make_unique<const OnnxEngine>(*api, file);
}

}  // namespace mfik
