// Bytes: a reference-counted, immutable slice of memory.
//
// Copying a Bytes shares the memory (one atomic increment); a sub-slice shares it too. So one
// client's request can stand in the log, in messages to peers and in write buffers at once without
// a copy. Thread-safe as a shared_ptr is: different Bytes objects over the same memory may live in
// different threads.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>

namespace conclave {

class Bytes {
 public:
  Bytes() = default;
  Bytes(const Bytes& other) : owner_(other.owner_), data_(other.data_), size_(other.size_) {
    if (owner_ != nullptr) owner_->references.fetch_add(1, std::memory_order_relaxed);
  }
  Bytes(Bytes&& other) noexcept
      : owner_(std::exchange(other.owner_, nullptr)),
        data_(std::exchange(other.data_, nullptr)),
        size_(std::exchange(other.size_, 0)) {}
  Bytes& operator=(Bytes other) noexcept {
    std::swap(owner_, other.owner_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~Bytes() {
    if (owner_ != nullptr) Release(owner_);
  }

  // Copies `text` into memory of its own.
  static Bytes Copy(std::string_view text);

  // `size` uninitialised bytes for the caller to fill through `*out`, before the Bytes is shared.
  static Bytes Uninitialized(size_t size, char** out);

  // Memory that belongs to somebody else (a gRPC slice, say): `release(context)` is called once, on
  // whatever thread drops the last reference.
  static Bytes External(std::string_view memory, void (*release)(void* context), void* context);

  // A slice of the same memory. offset + length must be within size().
  Bytes Slice(size_t offset, size_t length) const;
  // The same, for a view that points into this memory.
  Bytes Slice(std::string_view part) const {
    return Slice(static_cast<size_t>(part.data() - data_), part.size());
  }

  // Write access for the sole owner of the memory, who fills in what it left free (a header, say).
  // CHECKs that nobody shares it.
  char* MutableData();

  const char* data() const { return data_; }
  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  std::string_view view() const { return {data_, size_}; }
  std::string ToString() const { return std::string(view()); }

  friend bool operator==(const Bytes& a, const Bytes& b) { return a.view() == b.view(); }

 private:
  struct Owner {
    std::atomic<uint32_t> references{1};
    void (*release)(void*) = nullptr;  // null: the bytes stand right behind this struct
    void* context = nullptr;
  };

  Bytes(Owner* owner, const char* data, size_t size) : owner_(owner), data_(data), size_(size) {}
  static void Release(Owner* owner);

  Owner* owner_ = nullptr;
  const char* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace conclave
