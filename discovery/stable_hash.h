// A hash of text that is the same in every process and on every platform, so that all clients put
// the same key on the same backend and choose the same subset. No defence against chosen keys: an
// adversary can load one backend anyway, with one key.
//
// Eight bytes at a time: each word is multiplied into the state at 128 bits, whose halves are
// folded; a finisher spreads what short texts leave alike.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace conclave {

inline uint64_t MixBits(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

namespace stable_hash_internal {

// A number that is little-endian in memory, on any platform.
template <typename Number>
uint64_t Load(const char* from) {
  uint64_t number = 0;
  if constexpr (std::endian::native == std::endian::little) {
    Number loaded;
    std::memcpy(&loaded, from, sizeof(loaded));
    number = loaded;
  } else {
    for (size_t i = sizeof(Number); i-- > 0;) {
      number = number << 8 | static_cast<unsigned char>(from[i]);
    }
  }
  return number;
}

// The last word of a text of `size` bytes: its last eight, some of which may have been hashed
// before, or all there are if they are fewer. (The size is hashed as well, so that "a" and "aa"
// differ.)
inline uint64_t LastWord(const char* text, size_t size) {
  if (size >= 8) return Load<uint64_t>(text + size - 8);
  if (size >= 4) return Load<uint32_t>(text) | Load<uint32_t>(text + size - 4) << 32;
  if (size == 0) return 0;
  return Load<uint8_t>(text) | Load<uint8_t>(text + size / 2) << 8 |
         Load<uint8_t>(text + size - 1) << 16;
}

}  // namespace stable_hash_internal

inline uint64_t StableHash(std::string_view text, uint64_t seed = 0) {
  constexpr uint64_t kFactor = 0x9e3779b97f4a7c15u;  // of the golden ratio: no pattern in its bits
  const auto fold = [](uint64_t state, uint64_t word) {
    const auto product = static_cast<unsigned __int128>(state ^ word) * kFactor;
    return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
  };
  uint64_t hash = MixBits(seed + kFactor * (text.size() + 1));
  const char* at = text.data();
  for (size_t left = text.size(); left > 8; left -= 8, at += 8) {
    hash = fold(hash, stable_hash_internal::Load<uint64_t>(at));
  }
  return MixBits(fold(hash, stable_hash_internal::LastWord(text.data(), text.size())));
}

}  // namespace conclave
