// KeyRange: what key and range_end of a request mean, in one place.
//
//   range_end ""       the single key
//   range_end "\0"     every key >= key
//   range_end <= key   no key at all
//   otherwise          key <= k < range_end
//
// A view: the strings belong to the caller.
#pragma once

#include <string>
#include <string_view>

namespace conclave::mvcc {

class KeyRange {
 public:
  // The empty range.
  KeyRange() = default;

  static KeyRange FromRequest(std::string_view key, std::string_view range_end) {
    if (range_end.empty()) return Single(key);
    if (range_end.size() == 1 && range_end[0] == '\0') return From(key);
    return Between(key, range_end);
  }
  static KeyRange Single(std::string_view key) { return KeyRange(key, {}, Kind::kSingle); }
  static KeyRange From(std::string_view key) { return KeyRange(key, {}, Kind::kOpen); }
  static KeyRange All() { return From({}); }
  static KeyRange Between(std::string_view begin, std::string_view end) {
    return KeyRange(begin, end, Kind::kClosed);
  }

  std::string_view begin() const { return begin_; }
  // The first key behind the range; meaningful only if !single() && !open_ended().
  std::string_view end() const { return end_; }
  bool single() const { return kind_ == Kind::kSingle; }
  bool open_ended() const { return kind_ == Kind::kOpen; }
  bool empty() const { return kind_ == Kind::kClosed && end_ <= begin_; }

  bool Contains(std::string_view key) const {
    switch (kind_) {
      case Kind::kSingle:
        return key == begin_;
      case Kind::kOpen:
        return key >= begin_;
      case Kind::kClosed:
        return key >= begin_ && key < end_;
    }
    return false;
  }
  // True if no key >= `key` can be inside: where an ascending scan stops.
  bool EndsBefore(std::string_view key) const {
    switch (kind_) {
      case Kind::kSingle:
        return key > begin_;
      case Kind::kOpen:
        return false;
      case Kind::kClosed:
        return key >= end_;
    }
    return true;
  }

 private:
  enum class Kind : unsigned char { kSingle, kOpen, kClosed };
  KeyRange(std::string_view begin, std::string_view end, Kind kind)
      : begin_(begin), end_(end), kind_(kind) {}

  std::string_view begin_;
  std::string_view end_;
  Kind kind_ = Kind::kClosed;
};

// The range_end that makes `prefix` a range of all keys with that prefix ("\0" if there is no upper
// bound).
inline std::string PrefixEnd(std::string_view prefix) {
  std::string end(prefix);
  while (!end.empty()) {
    if (static_cast<unsigned char>(end.back()) < 0xff) {
      ++end.back();
      return end;
    }
    end.pop_back();
  }
  return std::string(1, '\0');
}

}  // namespace conclave::mvcc
