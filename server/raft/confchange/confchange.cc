#include "conclave/server/raft/confchange/confchange.h"

#include <cstring>

#include "conclave/base/check.h"

namespace conclave::raft {
namespace {

constexpr size_t kHeaderBytes = 2;
constexpr size_t kStepBytes = 9;

}  // namespace

Bytes EncodeConfChange(const ConfChange& change) {
  CONCLAVE_CHECK(change.steps.size() <= kMaxConfChangeSteps);
  char* out = nullptr;
  const size_t fixed = kHeaderBytes + change.steps.size() * kStepBytes;
  Bytes encoded = Bytes::Uninitialized(fixed + change.context.size(), &out);
  *out++ = static_cast<char>(change.kind);
  *out++ = static_cast<char>(change.steps.size());
  for (const ConfChangeStep& step : change.steps) {
    *out++ = static_cast<char>(step.type);
    for (int byte = 0; byte < 8; ++byte) {
      *out++ = static_cast<char>(step.node.value() >> (8 * byte));
    }
  }
  if (!change.context.empty()) std::memcpy(out, change.context.data(), change.context.size());
  return encoded;
}

std::optional<ConfChange> DecodeConfChange(const Bytes& payload) {
  const std::string_view in = payload.view();
  if (in.size() < kHeaderBytes) return std::nullopt;
  const auto byte_at = [&](size_t at) { return static_cast<uint8_t>(in[at]); };
  const size_t steps = byte_at(1);
  const size_t fixed = kHeaderBytes + steps * kStepBytes;
  if (byte_at(0) > static_cast<uint8_t>(ConfChangeKind::kLeaveJoint)) return std::nullopt;
  if (steps > kMaxConfChangeSteps || in.size() < fixed) return std::nullopt;

  ConfChange change;
  change.kind = static_cast<ConfChangeKind>(byte_at(0));
  if ((change.kind == ConfChangeKind::kLeaveJoint) != (steps == 0)) return std::nullopt;
  for (size_t at = kHeaderBytes; at < fixed; at += kStepBytes) {
    if (byte_at(at) > static_cast<uint8_t>(ConfChangeType::kRemove)) return std::nullopt;
    uint64_t node = 0;
    for (size_t byte = 0; byte < 8; ++byte) {
      node |= static_cast<uint64_t>(byte_at(at + 1 + byte)) << (8 * byte);
    }
    change.steps.push_back({static_cast<ConfChangeType>(byte_at(at)), NodeId(node)});
  }
  change.context = payload.Slice(fixed, in.size() - fixed);
  return change;
}

}  // namespace conclave::raft
