// Strong<Tag>: an unsigned 64-bit number that does not mix with other numbers.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>

namespace conclave {

template <typename Tag>
class Strong {
 public:
  constexpr Strong() = default;
  constexpr explicit Strong(uint64_t value) : value_(value) {}

  constexpr uint64_t value() const { return value_; }
  constexpr explicit operator bool() const { return value_ != 0; }

  constexpr auto operator<=>(const Strong&) const = default;

  // Counting on: the successor, a distance. Sums of two of a kind have no meaning and do not exist.
  constexpr Strong& operator++() {
    ++value_;
    return *this;
  }
  friend constexpr Strong operator+(Strong a, uint64_t count) { return Strong(a.value_ + count); }
  friend constexpr Strong operator-(Strong a, uint64_t count) { return Strong(a.value_ - count); }
  friend constexpr uint64_t operator-(Strong a, Strong b) { return a.value_ - b.value_; }

  template <typename H>
  friend H AbslHashValue(H state, Strong strong) {
    return H::combine(std::move(state), strong.value_);
  }

 private:
  uint64_t value_ = 0;
};

}  // namespace conclave

template <typename Tag>
struct std::hash<conclave::Strong<Tag>> {
  size_t operator()(conclave::Strong<Tag> strong) const noexcept {
    return std::hash<uint64_t>{}(strong.value());
  }
};
