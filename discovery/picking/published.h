// Published<T>: an immutable object that many threads read all the time and one replaces now and
// then.
//
// A reader takes no lock and shares no cache line with readers on other threads: it counts itself
// in a slot of its own thread (two atomic additions, about 10 ns for both). Replace puts the new
// object in place and then waits until all readers that may hold the old one have left; so what is
// read must be let go soon, and a reader must not replace.
//
// The waiting is that of sleepable RCU: readers count themselves under one of two phases; the
// writer turns the phase twice, and each time waits for the readers of the phase before. New
// readers count under the other phase, so that it need not wait for them. Twice, because a reader
// may have looked at the phase just before it was turned, and count itself just after.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

namespace conclave::picking {

// A small number of the calling thread's, the same each time.
inline size_t ThreadSlot() {
  static std::atomic<size_t> next = 0;
  thread_local const size_t slot = next.fetch_add(1, std::memory_order_relaxed);
  return slot;
}

template <typename T>
class Published {
 public:
  explicit Published(std::unique_ptr<const T> initial) : current_(initial.release()) {}
  // Nobody reads any more.
  ~Published() { delete current_.load(); }
  Published(const Published&) = delete;
  Published& operator=(const Published&) = delete;

  class Reader {
   public:
    ~Reader() { count_->fetch_sub(1, std::memory_order_release); }
    Reader(const Reader&) = delete;
    Reader& operator=(const Reader&) = delete;
    const T& operator*() const { return *object_; }
    const T* operator->() const { return object_; }

   private:
    friend class Published;
    explicit Reader(const Published& from)
        : count_(&from.slots_[ThreadSlot() % kSlots].readers[from.phase_.load()]) {
      count_->fetch_add(1);
      object_ = from.current_.load();
    }
    std::atomic<int64_t>* count_;
    const T* object_;
  };
  Reader Read() const { return Reader(*this); }

  void Replace(std::unique_ptr<const T> with) {
    const std::lock_guard lock(replacing_);
    const std::unique_ptr<const T> old(current_.exchange(with.release()));
    for (int turn = 0; turn < 2; ++turn) {
      const uint32_t before = phase_.load();
      phase_.store(1 - before);
      for (Slot& slot : slots_) {
        while (slot.readers[before].load() != 0) std::this_thread::yield();
      }
    }
  }

 private:
  static constexpr size_t kSlots = 16;
  struct alignas(64) Slot {
    std::array<std::atomic<int64_t>, 2> readers{};
  };

  mutable std::array<Slot, kSlots> slots_{};
  std::atomic<uint32_t> phase_ = 0;
  std::atomic<const T*> current_;
  std::mutex replacing_;
};

}  // namespace conclave::picking
