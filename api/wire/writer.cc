#include "conclave/api/wire/writer.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "conclave/base/check.h"

namespace conclave::wire {
namespace {

constexpr size_t kFirstCapacity = 512;
// Up to this size a copy costs less than giving the buffer away and growing another one.
constexpr size_t kTakeByCopyMax = 64 * 1024;

}  // namespace

Builder::~Builder() { std::free(data_); }

Builder::Builder(Builder&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      capacity_(std::exchange(other.capacity_, 0)) {}

Builder& Builder::operator=(Builder&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(capacity_, other.capacity_);
  return *this;
}

void Builder::Truncate(size_t size) {
  CONCLAVE_CHECK(size <= size_);
  size_ = size;
}

void Builder::Grow(size_t capacity) {
  capacity = std::max({capacity, capacity_ * 2, kFirstCapacity});
  char* const data = static_cast<char*>(std::realloc(data_, capacity));
  CONCLAVE_CHECK(data != nullptr, "out of memory for ", capacity, " bytes");
  data_ = data;
  capacity_ = capacity;
}

size_t Builder::BeginMessage(uint32_t field) {
  // One byte for the length; End makes more room where the message turned out to be longer.
  char* const at = Extend(2);
  at[0] = static_cast<char>(LengthTag(field));
  return size_;
}

void Builder::EndMessage(size_t begin) {
  CONCLAVE_CHECK(begin <= size_ && begin >= 2);
  const size_t length = size_ - begin;
  const size_t extra = VarintSize(length) - 1;
  if (extra > 0) {
    Extend(extra);
    std::memmove(data_ + begin + extra, data_ + begin, length);
  }
  WriteVarint(data_ + begin - 1, length);
}

Bytes Builder::Take() {
  if (size_ <= kTakeByCopyMax) {
    Bytes bytes = Bytes::Copy(view());
    size_ = 0;
    return bytes;
  }
  if (capacity_ - size_ > size_ / 8) {
    // Gives the unused pages back: the answer may wait in a slow client's queue.
    char* const shrunk = static_cast<char*>(std::realloc(data_, size_));
    if (shrunk != nullptr) data_ = shrunk;
  }
  char* const data = std::exchange(data_, nullptr);
  const size_t size = std::exchange(size_, 0);
  capacity_ = 0;
  return Bytes::External(
      {data, size}, [](void* memory) { std::free(memory); }, data);
}

}  // namespace conclave::wire
