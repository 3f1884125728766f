// The checksum of a bundle file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace mfik {

/// Where a bundle file keeps its checksum: the first value of its header, behind the header's length.
constexpr std::size_t kChecksumOffset = 34, kChecksumDigits = 8;

/// CRC-32 of ITU-T V.42 (reflected, polynomial 0x04C11DB7; zlib's), continued from the `crc` of what precedes.
std::uint32_t crc32(std::string_view bytes, std::uint32_t crc = 0) noexcept;

/// The checksum of a bundle file, lower-case hexadecimal: CRC-32 of its bytes with '0' for each digit of the checksum.
/// @param[in] bytes  The file, at least kChecksumOffset + kChecksumDigits bytes.
std::string bundle_checksum(std::string_view bytes);

}  // namespace mfik
