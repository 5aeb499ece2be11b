#include "conclave/api/wire/reader.h"

#include <climits>
#include <cstddef>

#include "conclave/base/utf8.h"

namespace conclave::wire {
namespace {

// protobuf's own bound for a length prefix.
constexpr uint64_t kMaxSize = INT_MAX - 16;

}  // namespace

bool Reader::NextSlow() {
  // A tag has at most five bytes; what exceeds 32 bits is dropped.
  uint64_t tag = 0;
  for (int shift = 0; shift < 35; shift += 7) {
    if (at_ == end_) break;
    const auto byte = static_cast<uint8_t>(*at_++);
    tag |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if (byte < 0x80) {
      tag_ = static_cast<uint32_t>(tag);
      if (tag_ >> 3 == 0) break;
      return true;
    }
  }
  Fail();
  return false;
}

uint64_t Reader::VarintSlow() {
  uint64_t value = 0;
  for (int shift = 0; shift < 70; shift += 7) {
    if (at_ == end_) break;
    const auto byte = static_cast<uint8_t>(*at_++);
    value |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if (byte < 0x80) return value;
  }
  Fail();
  return 0;
}

uint32_t Reader::SizeSlow() {
  uint64_t size = 0;
  for (int shift = 0; shift < 35; shift += 7) {
    if (at_ == end_) break;
    const auto byte = static_cast<uint8_t>(*at_++);
    size |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if (byte < 0x80) {
      if (size > kMaxSize) break;
      return static_cast<uint32_t>(size);
    }
  }
  Fail();
  return 0;
}

std::string_view Reader::String() {
  const std::string_view text = Bytes();
  if (!IsUtf8(text)) Fail();
  return text;
}

void Reader::Skip(uint32_t highest_known) {
  if (field() <= highest_known) {
    Fail();
    return;
  }
  SkipValue(tag_, depth_);
}

void Reader::SkipValue(uint32_t tag, int depth) {
  switch (static_cast<WireType>(tag & 7)) {
    case WireType::kVarint:
      Varint();
      return;
    case WireType::kFixed64:
    case WireType::kFixed32: {
      const ptrdiff_t size = (tag & 7) == static_cast<uint32_t>(WireType::kFixed64) ? 8 : 4;
      if (end_ - at_ < size) {
        Fail();
      } else {
        at_ += size;
      }
      return;
    }
    case WireType::kLength:
      Bytes();
      return;
    case WireType::kStartGroup:
      SkipGroup(tag >> 3, depth);
      return;
    case WireType::kEndGroup:
      break;
  }
  Fail();
}

// The recursion is bounded by `depth`, which starts at kMaxDepth.
void Reader::SkipGroup(uint32_t field, int depth) {
  if (--depth < 0) {
    Fail();
    return;
  }
  while (Next()) {
    const uint32_t tag = tag_;
    if ((tag & 7) == static_cast<uint32_t>(WireType::kEndGroup)) {
      if (tag >> 3 != field) Fail();
      return;
    }
    SkipValue(tag, depth);
  }
  Fail();  // the group is not closed
}

}  // namespace conclave::wire
