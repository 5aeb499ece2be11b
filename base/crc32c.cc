#include "conclave/base/crc32c.h"

#include <array>
#include <bit>
#include <cstddef>
#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

namespace conclave {
namespace {

constexpr uint32_t kPolynomial = 0x82f63b78;  // reflected

using Table = std::array<std::array<uint32_t, 256>, 8>;

// table[k][b] is the CRC register after byte b and k zero bytes: eight bytes are then looked up
// independently of each other ("slicing by 8").
constexpr Table MakeTable() {
  Table table{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? kPolynomial : 0);
    table[0][byte] = crc;
  }
  for (uint32_t byte = 0; byte < 256; ++byte) {
    for (size_t k = 1; k < 8; ++k) {
      const uint32_t before = table[k - 1][byte];
      table[k][byte] = (before >> 8) ^ table[0][before & 0xff];
    }
  }
  return table;
}

constexpr Table kTable = MakeTable();

uint32_t LoadLittle32(const char* at) {
  uint32_t word;
  std::memcpy(&word, at, sizeof(word));
  if constexpr (std::endian::native == std::endian::big) word = __builtin_bswap32(word);
  return word;
}

#if defined(__x86_64__)

// Advances a CRC register over zero bytes by a matrix over GF(2), kept as 4 tables of 256 entries.
// It joins the three independent streams of ExtendByHardware.
template <size_t kZeros>
struct Shift {
  std::array<std::array<uint32_t, 256>, 4> table;

  constexpr Shift() : table{} {
    std::array<uint32_t, 32> image{};  // of each single bit
    for (int bit = 0; bit < 32; ++bit) {
      uint32_t crc = uint32_t{1} << bit;
      for (size_t zero = 0; zero < kZeros; ++zero) crc = (crc >> 8) ^ kTable[0][crc & 0xff];
      image[bit] = crc;
    }
    for (int part = 0; part < 4; ++part) {
      for (uint32_t byte = 0; byte < 256; ++byte) {
        uint32_t sum = 0;
        for (int bit = 0; bit < 8; ++bit) {
          if ((byte >> bit & 1) != 0) sum ^= image[part * 8 + bit];
        }
        table[part][byte] = sum;
      }
    }
  }

  uint32_t operator()(uint32_t crc) const {
    return table[0][crc & 0xff] ^ table[1][crc >> 8 & 0xff] ^ table[2][crc >> 16 & 0xff] ^
           table[3][crc >> 24];
  }
};

uint64_t Load64(const char* at) {
  uint64_t word;
  std::memcpy(&word, at, sizeof(word));
  return word;
}

// The instruction has a latency of three cycles and a throughput of one: three streams, each of
// kStream bytes, keep it busy.
constexpr size_t kStream = 1024;

__attribute__((target("sse4.2"))) uint32_t ExtendSse42(uint32_t crc, const char* at, size_t size) {
  static const Shift<kStream> shift;
  uint64_t a = ~crc;
  while (size >= 3 * kStream) {
    uint64_t b = 0;
    uint64_t c = 0;
    for (size_t i = 0; i < kStream; i += 8) {
      a = _mm_crc32_u64(a, Load64(at + i));
      b = _mm_crc32_u64(b, Load64(at + kStream + i));
      c = _mm_crc32_u64(c, Load64(at + 2 * kStream + i));
    }
    a = shift(static_cast<uint32_t>(a)) ^ b;
    a = shift(static_cast<uint32_t>(a)) ^ c;
    at += 3 * kStream;
    size -= 3 * kStream;
  }
  for (; size >= 8; at += 8, size -= 8) a = _mm_crc32_u64(a, Load64(at));
  uint32_t rest = static_cast<uint32_t>(a);
  for (; size > 0; ++at, --size) rest = _mm_crc32_u8(rest, static_cast<unsigned char>(*at));
  return ~rest;
}

#endif  // __x86_64__

}  // namespace

namespace crc32c_internal {

uint32_t ExtendByTable(uint32_t crc, std::string_view bytes) {
  const char* at = bytes.data();
  size_t size = bytes.size();
  crc = ~crc;
  for (; size >= 8; at += 8, size -= 8) {
    const uint32_t low = crc ^ LoadLittle32(at);
    const uint32_t high = LoadLittle32(at + 4);
    crc = kTable[7][low & 0xff] ^ kTable[6][low >> 8 & 0xff] ^ kTable[5][low >> 16 & 0xff] ^
          kTable[4][low >> 24] ^ kTable[3][high & 0xff] ^ kTable[2][high >> 8 & 0xff] ^
          kTable[1][high >> 16 & 0xff] ^ kTable[0][high >> 24];
  }
  for (; size > 0; ++at, --size) {
    crc = (crc >> 8) ^ kTable[0][(crc ^ static_cast<unsigned char>(*at)) & 0xff];
  }
  return ~crc;
}

#if defined(__x86_64__)
bool HardwareAvailable() { return __builtin_cpu_supports("sse4.2") != 0; }
uint32_t ExtendByHardware(uint32_t crc, std::string_view bytes) {
  return ExtendSse42(crc, bytes.data(), bytes.size());
}
#else
bool HardwareAvailable() { return false; }
uint32_t ExtendByHardware(uint32_t crc, std::string_view bytes) {
  return ExtendByTable(crc, bytes);
}
#endif

}  // namespace crc32c_internal

uint32_t Crc32cExtend(uint32_t crc, std::string_view bytes) {
  static const bool hardware = crc32c_internal::HardwareAvailable();
  return hardware ? crc32c_internal::ExtendByHardware(crc, bytes)
                  : crc32c_internal::ExtendByTable(crc, bytes);
}

}  // namespace conclave
