// What PyTorch's C++ asks of a CUDA runtime where tests only pretend that there is one: one device, whose streams are
// one and wait for nothing. Loaded before a PyTorch that was built without CUDA (LD_PRELOAD).
#include <ATen/DeviceAccelerator.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

// PyTorch's own answer is decided when it is built; this one stands before it in the order of symbols.
namespace at::accelerator {
std::optional<c10::DeviceType> getAccelerator(bool) {
    return c10::DeviceType::CUDA;
}
bool isAccelerator(c10::DeviceType type) {
    return type == c10::DeviceType::CUDA;
}
}  // namespace at::accelerator

namespace c10::impl {
struct OneDevice final : NoOpDeviceGuardImpl<DeviceType::CUDA> {
    Device getDevice() const override { return {DeviceType::CUDA, 0}; }
    Device exchangeDevice(Device) const override { return getDevice(); }
    Stream getStream(Device) const noexcept override { return Stream(Stream::DEFAULT, getDevice()); }
    Stream getNewStream(Device, int) const override { return getStream(getDevice()); }
    Stream exchangeStream(Stream) const noexcept override { return getStream(getDevice()); }
};
C10_REGISTER_GUARD_IMPL(CUDA, OneDevice)
}  // namespace c10::impl

namespace at {
struct CUDAHooks final : CUDAHooksInterface {  // the name by which PyTorch looks for it
    explicit CUDAHooks(CUDAHooksArgs) {}
    void init() const override {}
    bool hasCUDA() const override { return true; }
    bool isAvailable() const override { return true; }
    bool hasPrimaryContext(DeviceIndex) const override { return true; }
    DeviceIndex current_device() const override { return 0; }
    int getNumGPUs() const override { return 1; }
};
REGISTER_CUDA_HOOKS(CUDAHooks)
}  // namespace at
