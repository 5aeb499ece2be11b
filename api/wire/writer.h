// Writing encoded messages: sizes and raw writes for what is sized first, and Builder for what
// grows.
//
// As protobuf does for proto3: fields in the order of their numbers, zero numbers and empty strings
// left out, varints in their shortest form. So our bytes equal those of protobuf's own
// serialisation.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "conclave/api/wire/reader.h"
#include "conclave/base/bytes.h"

namespace conclave::wire {

constexpr size_t VarintSize(uint64_t value) {
  return static_cast<size_t>((static_cast<uint32_t>(std::bit_width(value | 1)) * 9 + 64) / 64);
}

inline char* WriteVarint(char* at, uint64_t value) {
  while (value >= 0x80) {
    *at++ = static_cast<char>(value | 0x80);
    value >>= 7;
  }
  *at++ = static_cast<char>(value);
  return at;
}

// A field that is left out when it is 0 or empty. Only for field numbers below 16 (one byte of
// tag).
constexpr size_t NumberSize(uint64_t value) { return value == 0 ? 0 : 1 + VarintSize(value); }
constexpr size_t NumberSize(int64_t value) { return NumberSize(static_cast<uint64_t>(value)); }
constexpr size_t TextSize(size_t size) { return size == 0 ? 0 : 1 + VarintSize(size) + size; }
// A submessage is written even if it is empty.
constexpr size_t MessageSize(size_t size) { return 1 + VarintSize(size) + size; }

inline char* WriteNumber(char* at, uint32_t field, uint64_t value) {
  if (value == 0) return at;
  *at++ = static_cast<char>(VarintTag(field));
  return WriteVarint(at, value);
}
inline char* WriteNumber(char* at, uint32_t field, int64_t value) {
  return WriteNumber(at, field, static_cast<uint64_t>(value));
}
inline char* WriteText(char* at, uint32_t field, std::string_view text) {
  if (text.empty()) return at;
  *at++ = static_cast<char>(LengthTag(field));
  at = WriteVarint(at, text.size());
  std::memcpy(at, text.data(), text.size());
  return at + text.size();
}
// Tag and length of a submessage whose `size` bytes the caller writes next.
inline char* WriteMessageStart(char* at, uint32_t field, size_t size) {
  *at++ = static_cast<char>(LengthTag(field));
  return WriteVarint(at, size);
}

// Builder: a message that grows at its end, for those whose size is known only when they are done.
//
// Owns one buffer that doubles (large ones move by remapping pages, not by copying). Take hands the
// bytes over without a copy when they are many, and in a block of exact size when they are few;
// then the buffer stays for the next message.
class Builder {
 public:
  Builder() = default;
  ~Builder();
  Builder(const Builder&) = delete;
  Builder& operator=(const Builder&) = delete;
  Builder(Builder&& other) noexcept;
  Builder& operator=(Builder&& other) noexcept;

  size_t size() const { return size_; }
  std::string_view view() const { return {data_, size_}; }
  void Clear() { size_ = 0; }
  // Drops what was appended after the first `size` bytes.
  void Truncate(size_t size);
  void Reserve(size_t capacity) {
    if (capacity > capacity_) Grow(capacity);
  }

  // `size` uninitialised bytes at the end, to be filled by the caller at once.
  char* Extend(size_t size) {
    if (size > capacity_ - size_) [[unlikely]]
      Grow(size_ + size);
    char* const at = data_ + size_;
    size_ += size;
    return at;
  }

  void AppendRaw(std::string_view bytes) {
    if (!bytes.empty()) std::memcpy(Extend(bytes.size()), bytes.data(), bytes.size());
  }
  void AppendVarint(uint64_t value) { WriteVarint(Extend(VarintSize(value)), value); }
  void AppendNumber(uint32_t field, uint64_t value) {
    if (value != 0) WriteNumber(Extend(NumberSize(value)), field, value);
  }
  void AppendNumber(uint32_t field, int64_t value) {
    AppendNumber(field, static_cast<uint64_t>(value));
  }
  void AppendText(uint32_t field, std::string_view text) {
    if (!text.empty()) WriteText(Extend(TextSize(text.size())), field, text);
  }
  // An element of a repeated field, which is written even if it is empty.
  void AppendElement(uint32_t field, std::string_view text) {
    char* const at = Extend(MessageSize(text.size()));
    char* const start = WriteMessageStart(at, field, text.size());
    if (!text.empty()) std::memcpy(start, text.data(), text.size());
  }

  // A submessage whose size shows when it is done: what is appended between Begin and End.
  [[nodiscard]] size_t BeginMessage(uint32_t field);
  void EndMessage(size_t begin);

  // The message so far; leaves the Builder empty.
  [[nodiscard]] Bytes Take();

 private:
  void Grow(size_t capacity);

  char* data_ = nullptr;
  size_t size_ = 0;
  size_t capacity_ = 0;
};

}  // namespace conclave::wire
