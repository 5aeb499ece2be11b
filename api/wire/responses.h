// Responses, written without a message object in between.
//
// What a put, a read at one key and a keep-alive answer is sized first and written into one block
// of exact size; everything else is appended to a Builder. Append functions take the field number
// under which the message stands in the one that is being built.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "conclave/api/wire/writer.h"
#include "conclave/base/bytes.h"

namespace conclave::wire {

struct ResponseHeader {
  uint64_t cluster_id = 0;
  uint64_t member_id = 0;
  int64_t revision = 0;
  uint64_t raft_term = 0;
};

// mvccpb.KeyValue
struct KeyValue {
  std::string_view key;
  int64_t create_revision = 0;
  int64_t mod_revision = 0;
  int64_t version = 0;
  std::string_view value;
  int64_t lease = 0;
};

size_t SizeOf(const ResponseHeader& header);
char* Write(char* at, const ResponseHeader& header);
size_t SizeOf(const KeyValue& kv);
char* Write(char* at, const KeyValue& kv);

void AppendHeader(Builder* builder, const ResponseHeader& header);  // always field 1
void AppendKeyValue(Builder* builder, uint32_t field, const KeyValue& kv);
// The header of a response inside a transaction's: nothing but the revision.
void AppendRevisionHeader(Builder* builder, int64_t revision);

// ---- Whole responses ----------------------------------------------------------------------------

// Responses that have nothing but a header: compaction, lease revoke, defragment ...
[[nodiscard]] Bytes EncodeHeaderOnly(const ResponseHeader& header);
[[nodiscard]] Bytes EncodePut(const ResponseHeader& header, const KeyValue* prev_kv);
// A response of which everything but the header stands in `rest`, which is empty afterwards.
[[nodiscard]] Bytes EncodeBehindHeader(const ResponseHeader& header, Builder* rest);
// The answer to a read of one key; null: there is none, or it was filtered out.
[[nodiscard]] Bytes EncodeRangeOfOne(const ResponseHeader& header, const KeyValue* kv, bool more,
                                     int64_t count);

[[nodiscard]] Bytes EncodeLeaseGrant(const ResponseHeader& header, int64_t id, int64_t ttl_s);
[[nodiscard]] Bytes EncodeLeaseKeepAlive(const ResponseHeader& header, int64_t id, int64_t ttl_s);
// `keys` are written in the order given.
[[nodiscard]] Bytes EncodeLeaseTimeToLive(const ResponseHeader& header, int64_t id, int64_t ttl_s,
                                          int64_t granted_ttl_s,
                                          std::span<const std::string_view> keys);
[[nodiscard]] Bytes EncodeLeaseLeases(const ResponseHeader& header, std::span<const int64_t> ids);

// etcdserverpb.Member
struct Member {
  uint64_t id = 0;
  std::string_view name;
  std::span<const std::string> peer_urls;
  std::span<const std::string> client_urls;
  bool is_learner = false;
};
void AppendMember(Builder* builder, uint32_t field, const Member& member);
// MemberListResponse, also of remove, update and promote. The header's revision must be 0.
[[nodiscard]] Bytes EncodeMemberList(const ResponseHeader& header, std::span<const Member> members);
[[nodiscard]] Bytes EncodeMemberAdd(const ResponseHeader& header, const Member& added,
                                    std::span<const Member> members);

struct AlarmMember {
  uint64_t member_id = 0;
  int32_t alarm = 0;
};
[[nodiscard]] Bytes EncodeAlarm(const ResponseHeader& header, std::span<const AlarmMember> alarms);

// `version` is the cluster's.
[[nodiscard]] Bytes EncodeDowngrade(const ResponseHeader& header, std::string_view version);

[[nodiscard]] Bytes EncodeHash(const ResponseHeader& header, uint32_t hash);
[[nodiscard]] Bytes EncodeHashKv(const ResponseHeader& header, uint32_t hash,
                                 int64_t compact_revision, int64_t hash_revision);

struct Status {
  std::string_view version;
  int64_t db_size = 0;
  uint64_t leader = 0;
  uint64_t raft_index = 0;
  uint64_t raft_term = 0;
  uint64_t raft_applied_index = 0;
  std::vector<std::string> errors;
  int64_t db_size_in_use = 0;
  bool is_learner = false;
  std::string_view storage_version;
  int64_t db_size_quota = 0;
  std::string_view downgrade_target;  // empty: no downgrade is under way
};
[[nodiscard]] Bytes EncodeStatus(const ResponseHeader& header, const Status& status);

// ---- Watch --------------------------------------------------------------------------------------

struct WatchResponseHead {
  ResponseHeader header;
  int64_t watch_id = 0;
  bool created = false;
  bool canceled = false;
  int64_t compact_revision = 0;
  std::string_view cancel_reason;
  bool fragment = false;
};

// A WatchResponse is its head followed by its events (field 11, watch::EventBatch::Encoded); both
// are encodings of their own, so that many watchers' responses share one block of events.
[[nodiscard]] Bytes EncodeWatchHead(const WatchResponseHead& head);
void AppendWatchHead(Builder* builder, const WatchResponseHead& head);

}  // namespace conclave::wire
