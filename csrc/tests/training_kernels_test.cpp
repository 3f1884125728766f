// Index arithmetic of the training kernels' row functions, which the GPU runs too, past 2^31 elements: on address space
// that is reserved but not backed by memory, of which only the rows that are touched take any.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels/sample_batch.hpp"
#include "kernels/weighted_residual_loss.hpp"

namespace mfik {
namespace {

constexpr std::int64_t kDof = 7;
constexpr std::int64_t kRow = (std::int64_t{1} << 32) / kDof + 5;  // its joints start past 2^32 elements

class Reserved {
  public:
    explicit Reserved(std::int64_t floats)
        : size_(static_cast<std::size_t>(floats) * sizeof(float)),
          data_(mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)) {}
    Reserved(const Reserved&) = delete;
    Reserved& operator=(const Reserved&) = delete;
    ~Reserved() {
        if (data_ != MAP_FAILED) munmap(data_, size_);
    }
    bool valid() const { return data_ != MAP_FAILED; }
    float* get() const { return static_cast<float*>(data_); }

  private:
    std::size_t size_;
    void* data_;
};

TEST(TrainingKernels, RowsPastTwoToThe32ElementsAreTheirOwn) {
    const Reserved q((kRow + 1) * kDof), q_target((kRow + 1) * kDof), pose((kRow + 1) * 7), v((kRow + 1) * kDof);
    const Reserved r(kRow + 1), t(kRow + 1), weight(kRow + 1), out((kRow + 1) * kDof);
    for (const Reserved* array : {&q, &q_target, &pose, &v, &r, &t, &weight, &out}) ASSERT_TRUE(array->valid());
    for (int j = 0; j < kDof; ++j) {
        q.get()[kRow * kDof + j] = 0.1f * static_cast<float>(j);
        q_target.get()[kRow * kDof + j] = 0.3f;
        pose.get()[kRow * 7 + j] = static_cast<float>(j + 1);
    }
    r.get()[kRow] = 0.5f;

    AdaptiveWeightArgs<float> distance{q.get(), q_target.get(), weight.get(), kRow + 1, kDof, 1e-4f, 0.5f};
    float expected = 0;
    for (int j = 0; j < kDof; ++j) expected += std::pow(0.3f - 0.1f * static_cast<float>(j), 2.0f);
    EXPECT_NEAR((row_distance_sq<7>(distance, kRow)), expected, 1e-6);
    EXPECT_NEAR((row_distance_sq<0>(distance, kRow)), expected, 1e-6);

    WeightedResidualArgs<float> loss{};
    loss.u = q.get(), loss.v = q_target.get(), loss.derivative = v.get();
    loss.r = r.get(), loss.t = t.get(), loss.weight = nullptr;
    loss.loss = weight.get(), loss.squared = t.get(), loss.residual = out.get();
    loss.n = loss.num_jvp = kRow + 1, loss.dof = kDof, loss.c = 1.0f, loss.p = 0.0f;
    weighted_residual_row<7>(loss, kRow);
    EXPECT_NEAR(weight.get()[kRow], expected, 1e-6);
    for (int j = 0; j < kDof; ++j)
        EXPECT_NEAR(out.get()[kRow * kDof + j], 0.1f * static_cast<float>(j) - 0.3f, 1e-6) << j;

    const std::int64_t step = 3;
    SampleBatchArgs<float> sample{};
    sample.q = q.get(), sample.q_target = q_target.get(), sample.target_pose = pose.get(), sample.r = r.get();
    float state[7], label[7], velocity[7], pose_out[7], r_out, t_out, weight_out;
    const std::int64_t index = kRow;  // gather from past the boundary
    sample.index = &index;
    sample.out = {state, pose_out, label, &r_out, &t_out, velocity, &weight_out};
    sample.key = {1, &step, 0, 0, 0};
    sample.rows = kRow + 1, sample.batch = 1, sample.dof = kDof, sample.c = 1e-4f, sample.p = 0.5f;
    bool ok = false;
    sample_row<7>(sample, 0, {0.5f, 0.5f}, &ok);
    ASSERT_TRUE(ok);
    for (int j = 0; j < kDof; ++j) {
        EXPECT_FLOAT_EQ(state[j], 0.1f * static_cast<float>(j));
        EXPECT_FLOAT_EQ(pose_out[j], static_cast<float>(j + 1));
        EXPECT_NEAR(velocity[j], 2 * (0.3f - 0.1f * static_cast<float>(j)), 1e-6);
    }
    // And written past it: row i of the output is row i, whatever its number.
    const Reserved far_pose((kRow + 1) * 7), far_label((kRow + 1) * kDof), far_velocity((kRow + 1) * kDof);
    const Reserved far_r(kRow + 1), far_t(kRow + 1);
    for (const Reserved* array : {&far_pose, &far_label, &far_velocity, &far_r, &far_t}) ASSERT_TRUE(array->valid());
    sample.index = nullptr;
    sample.out = {out.get(),   far_pose.get(),     far_label.get(), far_r.get(),
                  far_t.get(), far_velocity.get(), weight.get()};
    sample_row<0>(sample, kRow, {0.5f, 0.5f}, &ok);
    ASSERT_TRUE(ok);
    EXPECT_EQ(far_r.get()[kRow], 0.5f);
    for (int j = 0; j < kDof; ++j) {
        EXPECT_FLOAT_EQ(out.get()[kRow * kDof + j], 0.1f * static_cast<float>(j));
        EXPECT_FLOAT_EQ(far_label.get()[kRow * kDof + j], 0.3f);
        EXPECT_FLOAT_EQ(far_pose.get()[kRow * 7 + j], static_cast<float>(j + 1));
    }
    sample.rows = kRow;
    sample_row<0>(sample, kRow, {0.5f, 0.5f}, &ok);
    EXPECT_FALSE(ok);
}

TEST(TrainingKernels, RowsTwoToThe31ApartDrawOtherTimes) {
    const std::int64_t step = 0;
    const BatchKey key{1, &step, 0, 0, 0};
    const std::int64_t far = std::int64_t{1} << 31;
    EXPECT_NE(draw_times(5, key, 0).r, draw_times(5 + far, key, 0).r);
    EXPECT_NE(draw_times(5, key, 0).r, draw_times(5, key, std::uint64_t{1} << 40).r);
}

}  // namespace
}  // namespace mfik
