// NameSpace: a part of the store that a client takes for the whole.
//
// Every key that goes out gets the prefix in front, every key that comes in loses it; ranges to the
// end of the store ("\0") end where the prefix does. Keys on the wire are those of Go's
// clientv3/namespace. It works where messages are written and read, so whatever runs on the Engine
// is within the space without knowing.
//
// The key that equals the prefix is not part of the space, for a key is never empty.
#pragma once

#include <string>
#include <string_view>
#include <utility>

namespace conclave {

class NameSpace {
 public:
  NameSpace() = default;  // the whole store
  explicit NameSpace(std::string_view prefix);

  const std::string& prefix() const { return prefix_; }

  // Outwards: a key, and the end of a range (by the protocol's conventions, see KeyRange).
  std::string Key(std::string_view key) const;
  std::string End(std::string_view end) const;
  // Inwards. False, and nothing is changed: the key is not one of this space.
  [[nodiscard]] bool Strip(std::string& key) const;

 private:
  std::string prefix_;
  std::string past_;  // the end of all keys that begin with prefix_
};

}  // namespace conclave
