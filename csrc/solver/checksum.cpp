#include "solver/checksum.hpp"

#include <array>
#include <cstring>

namespace mfik {

std::uint32_t crc32(std::string_view bytes, std::uint32_t crc) noexcept {
    // Eight tables take eight bytes a step ("slicing-by-8": Kounavis and Berry, ISCC 2005): table k advances the
    // remainder of a byte over k more zero bytes.
    static constexpr auto kTables = [] {
        std::array<std::array<std::uint32_t, 256>, 8> tables{};
        for (std::uint32_t i = 0; i < 256; ++i) {
            std::uint32_t value = i;
            for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ (value & 1 ? 0xEDB88320u : 0u);
            tables[0][i] = value;
        }
        for (std::size_t k = 1; k < 8; ++k) {
            for (std::size_t i = 0; i < 256; ++i) {
                tables[k][i] = (tables[k - 1][i] >> 8) ^ tables[0][tables[k - 1][i] & 0xFF];
            }
        }
        return tables;
    }();
    crc = ~crc;
    std::size_t i = 0;
    for (; i + 8 <= bytes.size(); i += 8) {
        std::uint32_t low = 0, high = 0;
        std::memcpy(&low, bytes.data() + i, sizeof(low));
        std::memcpy(&high, bytes.data() + i + 4, sizeof(high));
        low ^= crc;
        crc = kTables[7][low & 0xFF] ^ kTables[6][low >> 8 & 0xFF] ^ kTables[5][low >> 16 & 0xFF] ^
              kTables[4][low >> 24] ^ kTables[3][high & 0xFF] ^ kTables[2][high >> 8 & 0xFF] ^
              kTables[1][high >> 16 & 0xFF] ^ kTables[0][high >> 24];
    }
    for (; i < bytes.size(); ++i) crc = (crc >> 8) ^ kTables[0][(crc ^ static_cast<std::uint8_t>(bytes[i])) & 0xFF];
    return ~crc;
}

std::string bundle_checksum(std::string_view bytes) {
    std::uint32_t crc = crc32(bytes.substr(0, kChecksumOffset));
    crc = crc32(std::string_view("00000000", kChecksumDigits), crc);
    crc = crc32(bytes.substr(kChecksumOffset + kChecksumDigits), crc);
    std::string digits(kChecksumDigits, '0');
    for (std::size_t i = 0; i < kChecksumDigits; ++i) digits[i] = "0123456789abcdef"[crc >> (28 - 4 * i) & 0xF];
    return digits;
}

}  // namespace mfik
