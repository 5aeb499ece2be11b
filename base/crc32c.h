// CRC32C (Castagnoli, polynomial 0x1EDC6F41 reflected), the checksum of the log, of snapshots and
// of HashKV.
//
// Values are final ("finished") CRCs as RFC 3720 prints them; they can be extended without
// un-finishing:
//
//   uint32_t crc = Crc32c("head");
//   crc = Crc32cExtend(crc, "tail");      // == Crc32c("headtail")
//
// The SSE4.2 instruction is used where the processor has it (asked once, at start), a table of 8 x
// 256 entries elsewhere. Both are pure functions; thread-safe.
#pragma once

#include <cstdint>
#include <string_view>

namespace conclave {

// The CRC of everything `crc` covers followed by `bytes`. The CRC of nothing is 0.
[[nodiscard]] uint32_t Crc32cExtend(uint32_t crc, std::string_view bytes);

[[nodiscard]] inline uint32_t Crc32c(std::string_view bytes) { return Crc32cExtend(0, bytes); }

namespace crc32c_internal {
// Exposed for tests, which hold the two ways against each other.
uint32_t ExtendByTable(uint32_t crc, std::string_view bytes);
bool HardwareAvailable();
uint32_t ExtendByHardware(uint32_t crc, std::string_view bytes);  // only where it is available
}  // namespace crc32c_internal

}  // namespace conclave
