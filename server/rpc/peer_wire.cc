#include "conclave/server/rpc/peer_wire.h"

#include <bit>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "conclave/base/crc32c.h"

namespace conclave::rpc {
namespace {

static_assert(std::endian::native == std::endian::little, "numbers are copied as they are");

constexpr std::string_view kMagic = "CONCLAVE";

template <typename Number>
void Put(Number value, std::string* out) {
  out->append(reinterpret_cast<const char*>(&value), sizeof value);
}

template <typename Number>
Number Take(std::string_view* bytes) {
  Number value;
  std::memcpy(&value, bytes->data(), sizeof value);
  bytes->remove_prefix(sizeof value);
  return value;
}

}  // namespace

std::string EncodeHello(const Hello& hello) {
  std::string out(kMagic);
  Put(hello.version, &out);
  Put(hello.question ? kQuestionLane : static_cast<uint32_t>(hello.lane), &out);
  Put(hello.cluster_id, &out);
  Put(hello.from.value(), &out);
  Put(hello.to.value(), &out);
  Put(Crc32c(out), &out);
  return out;
}

std::optional<Hello> DecodeHello(std::string_view bytes) {
  if (bytes.size() != kHelloBytes || bytes.substr(0, kMagic.size()) != kMagic) return std::nullopt;
  const uint32_t checksum = Crc32c(bytes.substr(0, kHelloBytes - sizeof(uint32_t)));
  bytes.remove_prefix(kMagic.size());
  Hello hello;
  hello.version = Take<uint32_t>(&bytes);
  const auto lane = Take<uint32_t>(&bytes);
  hello.cluster_id = Take<uint64_t>(&bytes);
  hello.from = raft::NodeId(Take<uint64_t>(&bytes));
  hello.to = raft::NodeId(Take<uint64_t>(&bytes));
  if (Take<uint32_t>(&bytes) != checksum) return std::nullopt;
  hello.question = lane == kQuestionLane;
  if (hello.question) return hello;
  if (lane > static_cast<uint32_t>(node::PeerLane::kSnapshot)) return std::nullopt;
  hello.lane = static_cast<node::PeerLane>(lane);
  return hello;
}

std::string CheckHello(const Hello& hello, const PeerIdentity& self) {
  if (hello.version != kPeerVersion) {
    return absl::StrCat("peer protocol version ", hello.version, " is not ", kPeerVersion);
  }
  if (hello.question) return {};
  if (hello.cluster_id != self.cluster_id) {
    return absl::StrCat("cluster ID mismatch: theirs ", Hex(hello.cluster_id), ", ours ",
                        Hex(self.cluster_id));
  }
  if (hello.to != self.member) {
    return absl::StrCat("member ID mismatch: they look for ", Hex(hello.to.value()), ", this is ",
                        Hex(self.member.value()));
  }
  if (!hello.from || hello.from == self.member) {
    return absl::StrCat("bad member ID ", Hex(hello.from.value()));
  }
  return {};
}

std::string EncodeU32(uint32_t value) {
  std::string out;
  Put(value, &out);
  return out;
}

uint32_t DecodeU32(std::string_view bytes) { return Take<uint32_t>(&bytes); }

std::string Hex(uint64_t value) { return absl::StrCat(absl::Hex(value)); }

}  // namespace conclave::rpc
