#include "conclave/base/bytes.h"

#include <cstdlib>
#include <new>

#include "conclave/base/check.h"

namespace conclave {

Bytes Bytes::Uninitialized(size_t size, char** out) {
  if (size == 0) {
    *out = nullptr;
    return Bytes();
  }
  void* memory = ::operator new(sizeof(Owner) + size);
  Owner* owner = new (memory) Owner;
  *out = reinterpret_cast<char*>(owner + 1);
  return Bytes(owner, *out, size);
}

Bytes Bytes::Copy(std::string_view text) {
  char* out;
  Bytes bytes = Uninitialized(text.size(), &out);
  if (!text.empty()) std::memcpy(out, text.data(), text.size());
  return bytes;
}

Bytes Bytes::External(std::string_view memory, void (*release)(void*), void* context) {
  CONCLAVE_CHECK(release != nullptr);
  Owner* owner = new (::operator new(sizeof(Owner))) Owner;
  owner->release = release;
  owner->context = context;
  return Bytes(owner, memory.data(), memory.size());
}

Bytes Bytes::Slice(size_t offset, size_t length) const {
  CONCLAVE_CHECK(offset <= size_ && length <= size_ - offset, offset, "+", length, " of ", size_);
  if (owner_ != nullptr) owner_->references.fetch_add(1, std::memory_order_relaxed);
  return Bytes(owner_, data_ + offset, length);
}

char* Bytes::MutableData() {
  CONCLAVE_CHECK(owner_ == nullptr || owner_->references.load(std::memory_order_acquire) == 1);
  return const_cast<char*>(data_);
}

void Bytes::Release(Owner* owner) {
  if (owner->references.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  if (owner->release != nullptr) owner->release(owner->context);
  owner->~Owner();
  ::operator delete(owner);
}

}  // namespace conclave
