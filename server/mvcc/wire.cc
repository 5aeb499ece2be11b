#include "conclave/server/mvcc/wire.h"

#include <cstring>

namespace conclave::mvcc {
namespace {

// Tags: field number << 3 | wire type (0 varint, 2 length-delimited).
constexpr char kKeyTag = 1 << 3 | 2;
constexpr char kCreateTag = 2 << 3;
constexpr char kModTag = 3 << 3;
constexpr char kVersionTag = 4 << 3;
constexpr char kValueTag = 5 << 3 | 2;
constexpr char kLeaseTag = 6 << 3;

size_t NumberSize(int64_t value) {
  return value == 0 ? 0 : 1 + VarintSize(static_cast<uint64_t>(value));
}
size_t BytesSize(size_t size) { return size == 0 ? 0 : 1 + VarintSize(size) + size; }

char* WriteNumber(char tag, int64_t value, char* out) {
  if (value == 0) return out;
  *out++ = tag;
  return WriteVarint(static_cast<uint64_t>(value), out);
}

char* WriteBytes(char tag, std::string_view bytes, char* out) {
  if (bytes.empty()) return out;
  *out++ = tag;
  out = WriteVarint(bytes.size(), out);
  std::memcpy(out, bytes.data(), bytes.size());
  return out + bytes.size();
}

char* WriteFront(const Record& record, char* out) {
  out = WriteBytes(kKeyTag, record.key(), out);
  out = WriteNumber(kCreateTag, record.create_revision(), out);
  out = WriteNumber(kModTag, record.mod_revision(), out);
  return WriteNumber(kVersionTag, record.version(), out);
}

}  // namespace

size_t KeyValueSize(const Record& record, ValueField value) {
  return BytesSize(record.key().size()) + NumberSize(record.create_revision()) +
         NumberSize(record.mod_revision()) + NumberSize(record.version()) +
         (value == ValueField::kInclude ? BytesSize(record.value().size()) : 0) +
         NumberSize(record.lease());
}

char* WriteKeyValue(const Record& record, char* out, ValueField value) {
  out = WriteFront(record, out);
  if (value == ValueField::kInclude) out = WriteBytes(kValueTag, record.value(), out);
  return WriteNumber(kLeaseTag, record.lease(), out);
}

char* WriteKeyValueHead(const Record& record, char* out) {
  out = WriteFront(record, out);
  if (record.value().empty()) return out;
  *out++ = kValueTag;
  return WriteVarint(record.value().size(), out);
}

char* WriteKeyValueTail(const Record& record, char* out) {
  return WriteNumber(kLeaseTag, record.lease(), out);
}

}  // namespace conclave::mvcc
