#include "solver/aligned_buffer.hpp"

#include <algorithm>
#include <new>

namespace mfik {

AlignedBuffer::AlignedBuffer(std::size_t size)
    : data_(static_cast<float*>(::operator new[](size * sizeof(float), std::align_val_t{kAlignment}))) {
    std::fill_n(data_.get(), size, 0.0f);
}

void AlignedBuffer::Free::operator()(float* p) const noexcept {
    ::operator delete[](p, std::align_val_t{kAlignment});
}

}  // namespace mfik
