// Digest: 128 bits over a set of records, kept by adding and subtracting the hash of each.
//
// The order of additions does not matter and every change costs one hash, so a store keeps the
// digest of its live state with every write, and members compare it at equal applied index. Not
// cryptographic: it finds members that diverge by fault, not by malice.
#pragma once

#include <cstdint>

#include "conclave/server/mvcc/record.h"

namespace conclave::mvcc {

struct Digest {
  uint64_t low = 0;
  uint64_t high = 0;

  friend constexpr bool operator==(const Digest&, const Digest&) = default;

  // Sums in each half.
  Digest& operator+=(const Digest& other) {
    low += other.low;
    high += other.high;
    return *this;
  }
  Digest& operator-=(const Digest& other) {
    low -= other.low;
    high -= other.high;
    return *this;
  }
};

// The hash of all fields of a record.
[[nodiscard]] Digest HashRecord(const Record& record);

// Mixes a number into a digest, depending on the order; also for others who keep digests of their
// state (leases, members): fold their bytes with HashBytes.
[[nodiscard]] Digest Mix(const Digest& digest, uint64_t number);
[[nodiscard]] Digest HashBytes(std::string_view bytes, uint64_t seed = 0);

}  // namespace conclave::mvcc
