// mvccpb.KeyValue as protobuf bytes, straight from a record: needed for HashKV (which must agree
// with etcd to the byte), for the sizes of watch responses, and good for whoever sends records.
//
//   1 key, 2 create_revision, 3 mod_revision, 4 version, 5 value, 6 lease; fields of value 0 are
//   left out.
#pragma once

#include <cstddef>
#include <cstdint>

#include "conclave/server/mvcc/record.h"

namespace conclave::mvcc {

inline constexpr size_t VarintSize(uint64_t value) {
  return static_cast<size_t>(1 + (63 - __builtin_clzll(value | 1)) / 7);
}
// Writes a base-128 varint; returns the byte behind it.
inline char* WriteVarint(uint64_t value, char* out) {
  while (value >= 0x80) {
    *out++ = static_cast<char>(value | 0x80);
    value >>= 7;
  }
  *out++ = static_cast<char>(value);
  return out;
}

enum class ValueField { kInclude, kOmit };  // kOmit: keys_only

// Bytes of the message, without any tag or length in front.
[[nodiscard]] size_t KeyValueSize(const Record& record, ValueField value = ValueField::kInclude);

// Writes exactly KeyValueSize bytes; returns the byte behind them.
char* WriteKeyValue(const Record& record, char* out, ValueField value = ValueField::kInclude);

// The same in two parts, for whoever does not want to copy values: the fields in front of the
// value's bytes (with the tag and length of the value), and those behind it. Head is at most key
// size + 64 bytes, tail at most 16.
char* WriteKeyValueHead(const Record& record, char* out);
char* WriteKeyValueTail(const Record& record, char* out);

}  // namespace conclave::mvcc
