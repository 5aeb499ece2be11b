// Command: what stands in the log's entries. A header of 24 bytes, then a body whose shape the kind
// decides.
//
//   0       version, 1
//   1       kind: a wire::Method (the body is the client's request, as it came) or one of
//   CommandKind 2..7    zero 8..15   proposer: the member that proposed it, little-endian 16..23
//   sequence: the proposer's own number for it, little-endian
//
// Proposer and sequence only lead the outcome back to whoever waits for it; they do not touch the
// state. A sequence must not come again in a later life of the same member, or a replayed entry
// would answer a new call: start it at a random number, say.
//
// An entry with an empty payload (the first one of a leader) changes nothing.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "conclave/api/wire/method.h"
#include "conclave/base/bytes.h"
#include "conclave/server/auth/simple_tokens.h"
#include "conclave/server/auth/store.h"

namespace conclave::apply {

// Commands that no client sends. Stored in the log: the values never change.
enum class CommandKind : uint8_t {
  kLeaseExpire = 128,       // ends leases whose time has passed; as the leader of a term
  kLeaseCheckpoint = 129,   // what is left of some leases
  kMemberAttributes = 130,  // a member publishes its name and client URLs
  kClusterVersion = 131,    // the version that all members speak
  kRefill = 132,            // a member gets the others' state, because its own was wrong
  kOnBehalf = 151,          // a client's request, and who he was; while authentication is enabled
};

inline constexpr size_t kCommandHeaderSize = wire::kRequestHeadroom;
inline constexpr uint8_t kCommandVersion = 1;

struct CommandHeader {
  uint8_t kind = 0;  // a wire::Method or a CommandKind
  uint64_t proposer = 0;
  uint64_t sequence = 0;

  bool Is(wire::Method method) const { return kind == static_cast<uint8_t>(method); }
  bool Is(CommandKind command) const { return kind == static_cast<uint8_t>(command); }
};

// Writes kCommandHeaderSize bytes.
void WriteCommandHeader(char* at, const CommandHeader& header);
// None if the payload is too short, of another version or not zero where it must be.
[[nodiscard]] std::optional<CommandHeader> ReadCommandHeader(std::string_view payload);

// ---- Bodies of the commands of our own ----------------------------------------------------------

struct LeaseExpire {
  // The leader's term when it proposed: applied only in an entry of the same term, so that a leader
  // that stalled cannot end leases which its successor has renewed.
  uint64_t term = 0;
  std::vector<int64_t> ids;
};

struct LeaseRemaining {
  int64_t id = 0;
  int64_t remaining_ms = 0;
};

struct MemberAttributes {
  uint64_t member_id = 0;
  std::string name;
  std::vector<std::string> client_urls;
};

struct Refill {
  uint64_t member_id = 0;
  bool begins = false;  // else: its state is that of the others again
};

// A client's request in the name of a user, who was seen to be that user as of an auth revision.
struct OnBehalf {
  auth::Identity who;
  wire::Method method = wire::Method::kRange;
  std::string_view request;  // the encoded request; a view into what was decoded
};

// The body of Method::kAuthenticate in the log: the password was right. Never the password, never
// the token.
struct Login {
  std::string_view user;
  uint64_t auth_revision = 0;                     // as of which it was right
  std::optional<auth::TokenDigest> token_digest;  // of the simple token's letters, if it is one
};

// Whole payloads, the header filled in. A sequence of 0 is for commands nobody waits for.
[[nodiscard]] Bytes EncodeLeaseExpire(uint64_t proposer, uint64_t sequence,
                                      const LeaseExpire& command);
[[nodiscard]] Bytes EncodeLeaseCheckpoint(uint64_t proposer, uint64_t sequence,
                                          std::span<const LeaseRemaining> leases);
[[nodiscard]] Bytes EncodeMemberAttributes(uint64_t proposer, uint64_t sequence,
                                           const MemberAttributes& command);
[[nodiscard]] Bytes EncodeClusterVersion(uint64_t proposer, uint64_t sequence,
                                         std::string_view version);
// As if a client had sent Downgrade CANCEL.
[[nodiscard]] Bytes EncodeDowngradeEnd(uint64_t proposer, uint64_t sequence);
[[nodiscard]] Bytes EncodeRefill(uint64_t proposer, uint64_t sequence, const Refill& command);
[[nodiscard]] Bytes EncodeOnBehalf(uint64_t proposer, uint64_t sequence, const OnBehalf& command);
[[nodiscard]] Bytes EncodeLogin(uint64_t proposer, uint64_t sequence, const Login& command);

// Bodies (behind the header) back again; false if malformed.
[[nodiscard]] bool DecodeLeaseExpire(std::string_view body, LeaseExpire* command);
[[nodiscard]] bool DecodeLeaseCheckpoint(std::string_view body,
                                         std::vector<LeaseRemaining>* leases);
[[nodiscard]] bool DecodeMemberAttributes(std::string_view body, MemberAttributes* command);
[[nodiscard]] bool DecodeClusterVersion(std::string_view body, std::string* version);
[[nodiscard]] bool DecodeRefill(std::string_view body, Refill* command);
[[nodiscard]] bool DecodeOnBehalf(std::string_view body, OnBehalf* command);
[[nodiscard]] bool DecodeLogin(std::string_view body, Login* command);

}  // namespace conclave::apply
