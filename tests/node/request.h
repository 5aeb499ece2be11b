// A request as the transport hands it to a node.
#pragma once

#include <algorithm>
#include <string_view>

#include "conclave/base/bytes.h"
#include "conclave/server/node/io.h"

namespace conclave::node {

// An encoded request with the headroom in front, as the transport hands it over.
inline Bytes WithHeadroom(std::string_view encoded) {
  char* memory = nullptr;
  Bytes bytes = Bytes::Uninitialized(kRequestHeadroom + encoded.size(), &memory);
  if (!encoded.empty()) std::copy(encoded.begin(), encoded.end(), memory + kRequestHeadroom);
  return bytes;
}

}  // namespace conclave::node
