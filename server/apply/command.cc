#include "conclave/server/apply/command.h"

#include <utility>

#include "conclave/api/wire/reader.h"
#include "conclave/api/wire/requests.h"
#include "conclave/api/wire/writer.h"
#include "conclave/base/check.h"
#include "conclave/base/little_endian.h"

namespace conclave::apply {
namespace {

// A payload: room for the header, then the body, which is a protobuf-like message of the functions
// below.
class PayloadBuilder {
 public:
  PayloadBuilder(CommandKind kind, uint64_t proposer, uint64_t sequence)
      : PayloadBuilder(static_cast<uint8_t>(kind), proposer, sequence) {}
  PayloadBuilder(wire::Method method, uint64_t proposer, uint64_t sequence)
      : PayloadBuilder(static_cast<uint8_t>(method), proposer, sequence) {}
  wire::Builder* body() { return &builder_; }
  Bytes Take() { return builder_.Take(); }

 private:
  PayloadBuilder(uint8_t kind, uint64_t proposer, uint64_t sequence) {
    WriteCommandHeader(builder_.Extend(kCommandHeaderSize), {kind, proposer, sequence});
  }

  wire::Builder builder_;
};

}  // namespace

void WriteCommandHeader(char* at, const CommandHeader& header) {
  at[0] = static_cast<char>(kCommandVersion);
  at[1] = static_cast<char>(header.kind);
  std::memset(at + 2, 0, 6);
  StoreLittle(at + 8, header.proposer);
  StoreLittle(at + 16, header.sequence);
}

std::optional<CommandHeader> ReadCommandHeader(std::string_view payload) {
  constexpr uint64_t kKind = 0xff00;  // of the first eight bytes: the version, the kind, zeros
  if (payload.size() < kCommandHeaderSize ||
      (LoadLittle<uint64_t>(payload.data()) & ~kKind) != kCommandVersion) {
    return std::nullopt;
  }
  return CommandHeader{static_cast<uint8_t>(payload[1]), LoadLittle<uint64_t>(payload.data() + 8),
                       LoadLittle<uint64_t>(payload.data() + 16)};
}

// Body: 1 term; 2 id, repeated.
Bytes EncodeLeaseExpire(uint64_t proposer, uint64_t sequence, const LeaseExpire& command) {
  PayloadBuilder payload(CommandKind::kLeaseExpire, proposer, sequence);
  payload.body()->AppendNumber(1, command.term);
  for (const int64_t id : command.ids) payload.body()->AppendNumber(2, id);
  return payload.Take();
}

bool DecodeLeaseExpire(std::string_view body, LeaseExpire* command) {
  *command = LeaseExpire();
  wire::Reader reader(body);
  while (reader.Next()) {
    switch (reader.tag()) {
      case wire::VarintTag(1):
        command->term = reader.Varint();
        break;
      case wire::VarintTag(2):
        command->ids.push_back(reader.Int64());
        break;
      default:
        reader.Skip(2);
    }
  }
  return reader.ok();
}

// Body: (1 id, 2 remaining ms), repeated; an id begins the next lease.
Bytes EncodeLeaseCheckpoint(uint64_t proposer, uint64_t sequence,
                            std::span<const LeaseRemaining> leases) {
  PayloadBuilder payload(CommandKind::kLeaseCheckpoint, proposer, sequence);
  for (const LeaseRemaining& lease : leases) {
    payload.body()->AppendNumber(1, lease.id);
    payload.body()->AppendNumber(2, lease.remaining_ms);
  }
  return payload.Take();
}

bool DecodeLeaseCheckpoint(std::string_view body, std::vector<LeaseRemaining>* leases) {
  leases->clear();
  wire::Reader reader(body);
  while (reader.Next()) {
    switch (reader.tag()) {
      case wire::VarintTag(1):
        leases->push_back({reader.Int64(), 0});
        break;
      case wire::VarintTag(2): {
        const int64_t remaining_ms = reader.Int64();
        if (leases->empty() || remaining_ms < 0) {
          reader.Fail();
        } else {
          leases->back().remaining_ms = remaining_ms;
        }
        break;
      }
      default:
        reader.Skip(2);
    }
  }
  return reader.ok();
}

// Body: 1 member id; 2 name; 3 client URL, repeated.
Bytes EncodeMemberAttributes(uint64_t proposer, uint64_t sequence,
                             const MemberAttributes& command) {
  PayloadBuilder payload(CommandKind::kMemberAttributes, proposer, sequence);
  payload.body()->AppendNumber(1, command.member_id);
  payload.body()->AppendText(2, command.name);
  for (const std::string& url : command.client_urls) payload.body()->AppendElement(3, url);
  return payload.Take();
}

bool DecodeMemberAttributes(std::string_view body, MemberAttributes* command) {
  *command = MemberAttributes();
  wire::Reader reader(body);
  while (reader.Next()) {
    switch (reader.tag()) {
      case wire::VarintTag(1):
        command->member_id = reader.Varint();
        break;
      case wire::LengthTag(2):
        command->name = reader.String();
        break;
      case wire::LengthTag(3):
        command->client_urls.emplace_back(reader.String());
        break;
      default:
        reader.Skip(3);
    }
  }
  return reader.ok();
}

// Body: 1 version.
Bytes EncodeClusterVersion(uint64_t proposer, uint64_t sequence, std::string_view version) {
  PayloadBuilder payload(CommandKind::kClusterVersion, proposer, sequence);
  payload.body()->AppendText(1, version);
  return payload.Take();
}

bool DecodeClusterVersion(std::string_view body, std::string* version) {
  version->clear();
  wire::Reader reader(body);
  while (reader.Next()) {
    if (reader.tag() == wire::LengthTag(1)) {
      *version = reader.String();
    } else {
      reader.Skip(1);
    }
  }
  return reader.ok();
}

// Body: 1 member id; 2 it begins.
Bytes EncodeRefill(uint64_t proposer, uint64_t sequence, const Refill& command) {
  PayloadBuilder payload(CommandKind::kRefill, proposer, sequence);
  payload.body()->AppendNumber(1, command.member_id);
  payload.body()->AppendNumber(2, uint64_t{command.begins});
  return payload.Take();
}

bool DecodeRefill(std::string_view body, Refill* command) {
  *command = Refill();
  wire::Reader reader(body);
  while (reader.Next()) {
    switch (reader.tag()) {
      case wire::VarintTag(1):
        command->member_id = reader.Varint();
        break;
      case wire::VarintTag(2):
        command->begins = reader.Bool();
        break;
      default:
        reader.Skip(2);
    }
  }
  return reader.ok();
}

// Body: 1 user; 2 auth revision; 3 the revision is bound to the token; 4 method; 5 request.
Bytes EncodeOnBehalf(uint64_t proposer, uint64_t sequence, const OnBehalf& command) {
  PayloadBuilder payload(CommandKind::kOnBehalf, proposer, sequence);
  payload.body()->AppendText(1, command.who.user);
  payload.body()->AppendNumber(2, command.who.revision);
  payload.body()->AppendNumber(3, uint64_t{command.who.bound});
  payload.body()->AppendNumber(4, static_cast<uint64_t>(command.method));
  payload.body()->AppendText(5, command.request);
  return payload.Take();
}

bool DecodeOnBehalf(std::string_view body, OnBehalf* command) {
  constexpr uint64_t kMethodsEnd = 128;
  *command = OnBehalf();
  uint64_t method = 0;
  wire::Reader reader(body);
  while (reader.Next()) {
    switch (reader.tag()) {
      case wire::LengthTag(1):
        command->who.user = reader.Bytes();
        break;
      case wire::VarintTag(2):
        command->who.revision = reader.Varint();
        break;
      case wire::VarintTag(3):
        command->who.bound = reader.Bool();
        break;
      case wire::VarintTag(4):
        method = reader.Varint();
        break;
      case wire::LengthTag(5):
        command->request = reader.Bytes();
        break;
      default:
        reader.Skip(5);
    }
  }
  command->method = static_cast<wire::Method>(method);
  return reader.ok() && method > 0 && method < kMethodsEnd;
}

// Body: 1 user; 2 auth revision; 3 SHA-256 of the token's letters.
// Body: etcdserverpb.DowngradeRequest.
Bytes EncodeDowngradeEnd(uint64_t proposer, uint64_t sequence) {
  PayloadBuilder payload(wire::Method::kDowngrade, proposer, sequence);
  payload.body()->AppendNumber(1, static_cast<uint64_t>(wire::DowngradeAction::kCancel));
  return payload.Take();
}

Bytes EncodeLogin(uint64_t proposer, uint64_t sequence, const Login& command) {
  PayloadBuilder payload(wire::Method::kAuthenticate, proposer, sequence);
  payload.body()->AppendText(1, command.user);
  payload.body()->AppendNumber(2, command.auth_revision);
  if (command.token_digest.has_value()) {
    payload.body()->AppendText(3, {reinterpret_cast<const char*>(command.token_digest->data()),
                                   command.token_digest->size()});
  }
  return payload.Take();
}

bool DecodeLogin(std::string_view body, Login* command) {
  *command = Login();
  wire::Reader reader(body);
  while (reader.Next()) {
    switch (reader.tag()) {
      case wire::LengthTag(1):
        command->user = reader.Bytes();
        break;
      case wire::VarintTag(2):
        command->auth_revision = reader.Varint();
        break;
      case wire::LengthTag(3): {
        const std::string_view digest = reader.Bytes();
        command->token_digest.emplace();
        if (digest.size() == command->token_digest->size()) {
          std::memcpy(command->token_digest->data(), digest.data(), digest.size());
        } else {
          reader.Fail();
        }
        break;
      }
      default:
        reader.Skip(3);
    }
  }
  return reader.ok();
}

}  // namespace conclave::apply
