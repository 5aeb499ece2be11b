// Integers in the order of bytes that our files, entries and frames have, at any address. One load
// or store each; a machine of the other order needs the bytes turned here.
#pragma once

#include <bit>
#include <concepts>
#include <cstring>

namespace conclave {

template <std::integral Integer>
[[nodiscard]] Integer LoadLittle(const char* at) {
  static_assert(std::endian::native == std::endian::little);
  Integer value;
  std::memcpy(&value, at, sizeof(value));
  return value;
}

template <std::integral Integer>
void StoreLittle(char* at, Integer value) {
  static_assert(std::endian::native == std::endian::little);
  std::memcpy(at, &value, sizeof(value));
}

}  // namespace conclave
