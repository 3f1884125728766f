// Which instruction set runs. The sources that mfik_add_kernels lists (csrc/CMakeLists.txt) are compiled once for each
// instruction set, with MFIK_ISA naming it. Each compilation fills in a table of pointers to its functions, and
// `kernels<Table>()` is the table of the best instruction set that the processor has.
//
// All that such a source calls is inlined or internal to it: a function that the linker shares between compilations
// could run instructions that the processor lacks (tests/cpp/test_cpp.py looks at the object files).
#pragma once

#if defined(__x86_64__) && defined(__GNUC__) && !defined(MFIK_ONE_INSTRUCTION_SET)
#define MFIK_HAS_X86_LEVELS
#endif

namespace mfik::cpu {

/// Baseline: what every processor of the architecture has; avx2 and avx512: the levels x86-64-v3 and x86-64-v4.
enum class InstructionSet { kBaseline, kAvx2, kAvx512 };

/// The best that the processor has and that the kernels are compiled for.
[[nodiscard]] InstructionSet best_instruction_set() noexcept;

/// The table of one compilation, which defines the specialisation for its MFIK_ISA.
template <class Table, InstructionSet kSet>
const Table& compiled_kernels() noexcept;

/// The table for an instruction set, of which the processor must have at least that much.
template <class Table>
[[nodiscard]] const Table& kernels([[maybe_unused]] InstructionSet set = best_instruction_set()) noexcept {
#ifdef MFIK_HAS_X86_LEVELS
    if (set == InstructionSet::kAvx512) return compiled_kernels<Table, InstructionSet::kAvx512>();
    if (set == InstructionSet::kAvx2) return compiled_kernels<Table, InstructionSet::kAvx2>();
#endif
    return compiled_kernels<Table, InstructionSet::kBaseline>();
}

/// Declare the compilations of a table; stands behind its definition, in namespace mfik::cpu.
#define MFIK_DECLARE_KERNELS(TABLE)                                             \
    template <>                                                                 \
    const TABLE& compiled_kernels<TABLE, InstructionSet::kBaseline>() noexcept; \
    template <>                                                                 \
    const TABLE& compiled_kernels<TABLE, InstructionSet::kAvx2>() noexcept;     \
    template <>                                                                 \
    const TABLE& compiled_kernels<TABLE, InstructionSet::kAvx512>() noexcept

/// What the compiler was allowed to use where this stands. Tables carry it as `isa`, so that a build whose flags got
/// lost says so.
#if defined(__AVX512F__) && defined(__AVX512DQ__) && defined(__AVX512BW__) && defined(__AVX512VL__)
constexpr const char* kIsa = "avx512";
#elif defined(__AVX2__) && defined(__FMA__)
constexpr const char* kIsa = "avx2";
#else
constexpr const char* kIsa = "baseline";
#endif

}  // namespace mfik::cpu
