// Memory for vector registers.
#pragma once

#include <cstddef>
#include <memory>

namespace mfik {

constexpr std::size_t kAlignment = 64;  // [bytes]: a cache line, a register of AVX-512

/// Zero-filled floats on a cache line boundary.
class AlignedBuffer {
  public:
    AlignedBuffer() = default;
    explicit AlignedBuffer(std::size_t size);
    float* data() const noexcept { return data_.get(); }

  private:
    struct Free {
        void operator()(float* p) const noexcept;
    };
    std::unique_ptr<float[], Free> data_;
};

}  // namespace mfik
