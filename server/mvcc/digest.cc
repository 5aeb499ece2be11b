#include "conclave/server/mvcc/digest.h"

#include <bit>
#include <cstring>
#include <string_view>

namespace conclave::mvcc {
namespace {

// Odd constants: the first digits of pi's fraction, in blocks.
constexpr uint64_t kA = 0x243f6a8885a308d3;
constexpr uint64_t kB = 0x13198a2e03707345;
constexpr uint64_t kC = 0xa4093822299f31d1;
constexpr uint64_t kD = 0x082efa98ec4e6c89;

// The two halves of the 128-bit product, folded. Every bit of both factors reaches every bit of the
// result.
uint64_t Fold(uint64_t a, uint64_t b) {
  const unsigned __int128 product = static_cast<unsigned __int128>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

uint64_t Load(const char* at, size_t size) {
  uint64_t word = 0;
  std::memcpy(&word, at, size);
  if constexpr (std::endian::native == std::endian::big) word = __builtin_bswap64(word);
  return word;
}

// Two lanes with different constants; each word goes into both, so that each half alone is a good
// hash. Additions between the multiplications keep a zero factor from swallowing what came before.
struct Lanes {
  uint64_t x;
  uint64_t y;

  void Absorb(uint64_t first, uint64_t second) {
    x = Fold(x ^ first ^ kA, second ^ kB) + first;
    y = Fold(y ^ second ^ kC, first ^ kD) + second;
  }

  void AbsorbBytes(std::string_view bytes) {
    const char* at = bytes.data();
    size_t size = bytes.size();
    for (; size > 16; at += 16, size -= 16) Absorb(Load(at, 8), Load(at + 8, 8));
    const size_t first = size < 8 ? size : 8;
    Absorb(Load(at, first), size > 8 ? Load(at + 8, size - 8) : 0);
    Absorb(bytes.size(), kC);
  }

  Digest Finish() const {
    return {.low = Fold(x ^ kB, std::rotl(y, 32) ^ kC) + x,
            .high = Fold(y ^ kD, std::rotl(x, 32) ^ kA) + y};
  }
};

}  // namespace

Digest HashRecord(const Record& record) {
  const Revision revision = record.revision();
  Lanes lanes{kA, kC};
  lanes.Absorb(static_cast<uint64_t>(revision.main),
               static_cast<uint64_t>(revision.sub) << 1 | (record.tombstone() ? 1 : 0));
  lanes.Absorb(static_cast<uint64_t>(record.create_revision()),
               static_cast<uint64_t>(record.version()));
  lanes.Absorb(static_cast<uint64_t>(record.lease()), record.key().size());
  lanes.AbsorbBytes(record.key());
  lanes.AbsorbBytes(record.value());
  return lanes.Finish();
}

Digest Mix(const Digest& digest, uint64_t number) {
  Lanes lanes{digest.low, digest.high};
  lanes.Absorb(number, kB);
  return lanes.Finish();
}

Digest HashBytes(std::string_view bytes, uint64_t seed) {
  Lanes lanes{kA ^ seed, kC + seed};
  lanes.AbsorbBytes(bytes);
  return lanes.Finish();
}

}  // namespace conclave::mvcc
