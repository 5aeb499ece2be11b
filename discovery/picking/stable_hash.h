// A hash of text that is the same in every process and on every platform, so that all clients put
// the same key on the same backend: FNV-1a with splitmix64's finisher, which spreads what FNV
// leaves alike. No defence against chosen keys: an adversary can load one backend anyway, with one
// key.
#pragma once

#include <cstdint>
#include <string_view>

namespace conclave::picking {

inline uint64_t MixBits(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

inline uint64_t StableHash(std::string_view text, uint64_t seed = 0) {
  uint64_t hash = 0xcbf29ce484222325u ^ MixBits(seed);
  for (const char c : text) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  }
  return MixBits(hash);
}

}  // namespace conclave::picking
