// Reader: walks the fields of one encoded protobuf message in place, without allocation or copies.
//
//   Reader reader(bytes);
//   while (reader.Next()) {
//     switch (reader.tag()) {
//       case LengthTag(1): key = reader.Bytes(); break;
//       case VarintTag(3): limit = static_cast<int64_t>(reader.Varint()); break;
//       default: reader.Skip(kHighestKnownField);
//     }
//   }
//   return reader.ok();
//
// The bytes come from anywhere: every read is bounds-checked, a malformed message makes ok() false
// and ends the walk. It accepts and refuses what protobuf accepts and refuses (unknown fields and
// groups are skipped, bits of a varint beyond its type are dropped), with one exception: a known
// field of the wrong wire type is refused, as etcd does, where protobuf would take it for an
// unknown field.
#pragma once

#include <cstdint>
#include <string_view>

namespace conclave::wire {

enum class WireType : uint8_t {
  kVarint = 0,
  kFixed64 = 1,
  kLength = 2,
  kStartGroup = 3,
  kEndGroup = 4,
  kFixed32 = 5,
};

// Messages and groups may be nested this deep, as in protobuf.
inline constexpr int kMaxDepth = 100;

constexpr uint32_t VarintTag(uint32_t field) { return field << 3; }
constexpr uint32_t LengthTag(uint32_t field) { return field << 3 | 2; }

class Reader {
 public:
  explicit Reader(std::string_view bytes, int depth = kMaxDepth)
      : at_(bytes.data()), end_(bytes.data() + bytes.size()), depth_(depth) {}

  // Steps to the next field; exactly one of the value functions or Skip must follow. False: at the
  // end, or the message is malformed.
  bool Next() {
    if (at_ == end_) return false;
    const auto first = static_cast<uint8_t>(*at_);
    if (first < 0x80 && first >= 8) [[likely]] {
      ++at_;
      tag_ = first;
      return true;
    }
    return NextSlow();
  }

  // Field number and wire type of the current field, as VarintTag and LengthTag make them.
  uint32_t tag() const { return tag_; }
  uint32_t field() const { return tag_ >> 3; }

  uint64_t Varint() {
    if (at_ != end_ && static_cast<uint8_t>(*at_) < 0x80) [[likely]] {
      return static_cast<uint8_t>(*at_++);
    }
    return VarintSlow();
  }
  int64_t Int64() { return static_cast<int64_t>(Varint()); }
  int32_t Int32() { return static_cast<int32_t>(Varint()); }
  bool Bool() { return Varint() != 0; }

  std::string_view Bytes() {
    const uint32_t size = Size();
    if (size > static_cast<size_t>(end_ - at_)) [[unlikely]] {
      Fail();
      return {};
    }
    const std::string_view bytes(at_, size);
    at_ += size;
    return bytes;
  }

  // A field of type string: UTF-8 or malformed.
  std::string_view String();

  // Passes over a field that the caller does not know. Fields up to `highest_known` are known ones
  // of the wrong wire type, for messages without gaps in their numbers: malformed.
  void Skip(uint32_t highest_known = 0);

  // The message is malformed: ends the walk.
  void Fail() {
    ok_ = false;
    at_ = end_;
  }

  bool ok() const { return ok_; }
  // How many levels of nesting are left below this message.
  int depth() const { return depth_; }
  const char* position() const { return at_; }

 private:
  bool NextSlow();
  uint64_t VarintSlow();
  uint32_t Size();
  uint32_t SizeSlow();
  void SkipGroup(uint32_t field, int depth);
  void SkipValue(uint32_t tag, int depth);

  const char* at_;
  const char* end_;
  uint32_t tag_ = 0;
  int depth_;
  bool ok_ = true;
};

inline uint32_t Reader::Size() {
  if (at_ != end_ && static_cast<uint8_t>(*at_) < 0x80) [[likely]] {
    return static_cast<uint8_t>(*at_++);
  }
  return SizeSlow();
}

}  // namespace conclave::wire
