#include "conclave/client/core/types.h"

namespace conclave {

bool KeyRange::Contains(std::string_view candidate) const {
  if (end.empty()) return candidate == key;
  if (candidate < key) return false;
  return end == std::string_view("\0", 1) || candidate < end;
}

KeyRange Prefix(std::string_view prefix) {
  if (prefix.empty()) return AllKeys();
  // The end is the prefix with its last byte counted up; bytes 0xff cannot be, so they go first.
  std::string end(prefix);
  while (!end.empty() && static_cast<unsigned char>(end.back()) == 0xff) end.pop_back();
  if (end.empty()) return FromKey(prefix);
  end.back() = static_cast<char>(static_cast<unsigned char>(end.back()) + 1);
  return KeyRange(prefix, end);
}

KeyRange FromKey(std::string_view key) { return KeyRange(key, std::string_view("\0", 1)); }

KeyRange AllKeys() { return FromKey(std::string_view("\0", 1)); }

Op Get(std::string_view key) { return RangeRequest{.range = KeyRange(key), .options = {}}; }

Op Range(const KeyRange& range, const RangeOptions& options) {
  return RangeRequest{.range = range, .options = options};
}

Op Put(std::string_view key, std::string_view value, const PutOptions& options) {
  return PutRequest{.key = std::string(key), .value = std::string(value), .options = options};
}

Op Delete(const KeyRange& range, const DeleteOptions& options) {
  return DeleteRequest{.range = range, .options = options};
}

Op Txn(TxnRequest request) { return Op(std::move(request)); }

}  // namespace conclave
