#include "conclave/api/wire/responses.h"

namespace conclave::wire {
namespace {

constexpr uint32_t kHeaderField = 1;

// An optional header field: a header without any field set is still written.
char* WriteHeaderField(char* at, const ResponseHeader& header, size_t size) {
  return Write(WriteMessageStart(at, kHeaderField, size), header);
}

}  // namespace

size_t SizeOf(const ResponseHeader& header) {
  return NumberSize(header.cluster_id) + NumberSize(header.member_id) +
         NumberSize(header.revision) + NumberSize(header.raft_term);
}

char* Write(char* at, const ResponseHeader& header) {
  at = WriteNumber(at, 1, header.cluster_id);
  at = WriteNumber(at, 2, header.member_id);
  at = WriteNumber(at, 3, header.revision);
  return WriteNumber(at, 4, header.raft_term);
}

size_t SizeOf(const KeyValue& kv) {
  return TextSize(kv.key.size()) + NumberSize(kv.create_revision) + NumberSize(kv.mod_revision) +
         NumberSize(kv.version) + TextSize(kv.value.size()) + NumberSize(kv.lease);
}

char* Write(char* at, const KeyValue& kv) {
  at = WriteText(at, 1, kv.key);
  at = WriteNumber(at, 2, kv.create_revision);
  at = WriteNumber(at, 3, kv.mod_revision);
  at = WriteNumber(at, 4, kv.version);
  at = WriteText(at, 5, kv.value);
  return WriteNumber(at, 6, kv.lease);
}

void AppendHeader(Builder* builder, const ResponseHeader& header) {
  const size_t size = SizeOf(header);
  WriteHeaderField(builder->Extend(MessageSize(size)), header, size);
}

void AppendKeyValue(Builder* builder, uint32_t field, const KeyValue& kv) {
  const size_t size = SizeOf(kv);
  Write(WriteMessageStart(builder->Extend(MessageSize(size)), field, size), kv);
}

void AppendRevisionHeader(Builder* builder, int64_t revision) {
  AppendHeader(builder, ResponseHeader{.revision = revision});
}

Bytes EncodeHeaderOnly(const ResponseHeader& header) {
  const size_t size = SizeOf(header);
  char* at;
  Bytes bytes = Bytes::Uninitialized(MessageSize(size), &at);
  WriteHeaderField(at, header, size);
  return bytes;
}

Bytes EncodePut(const ResponseHeader& header, const KeyValue* prev_kv) {
  if (prev_kv == nullptr) return EncodeHeaderOnly(header);
  const size_t header_size = SizeOf(header);
  const size_t kv_size = SizeOf(*prev_kv);
  char* at;
  Bytes bytes = Bytes::Uninitialized(MessageSize(header_size) + MessageSize(kv_size), &at);
  at = WriteHeaderField(at, header, header_size);
  Write(WriteMessageStart(at, 2, kv_size), *prev_kv);
  return bytes;
}

Bytes EncodeBehindHeader(const ResponseHeader& header, Builder* rest) {
  const size_t header_size = SizeOf(header);
  char* at;
  Bytes bytes = Bytes::Uninitialized(MessageSize(header_size) + rest->size(), &at);
  at = WriteHeaderField(at, header, header_size);
  if (rest->size() > 0) std::memcpy(at, rest->view().data(), rest->size());
  rest->Clear();
  return bytes;
}

Bytes EncodeRangeOfOne(const ResponseHeader& header, const KeyValue* kv, bool more, int64_t count) {
  const size_t header_size = SizeOf(header);
  const size_t kv_size = kv == nullptr ? 0 : SizeOf(*kv);
  const size_t size = MessageSize(header_size) + (kv == nullptr ? 0 : MessageSize(kv_size)) +
                      NumberSize(uint64_t{more}) + NumberSize(count);
  char* at;
  Bytes bytes = Bytes::Uninitialized(size, &at);
  at = WriteHeaderField(at, header, header_size);
  if (kv != nullptr) at = Write(WriteMessageStart(at, 2, kv_size), *kv);
  at = WriteNumber(at, 3, uint64_t{more});
  WriteNumber(at, 4, count);
  return bytes;
}

Bytes EncodeLeaseGrant(const ResponseHeader& header, int64_t id, int64_t ttl_s) {
  return EncodeLeaseKeepAlive(header, id, ttl_s);  // the same shape
}

Bytes EncodeLeaseKeepAlive(const ResponseHeader& header, int64_t id, int64_t ttl_s) {
  const size_t header_size = SizeOf(header);
  char* at;
  Bytes bytes =
      Bytes::Uninitialized(MessageSize(header_size) + NumberSize(id) + NumberSize(ttl_s), &at);
  at = WriteHeaderField(at, header, header_size);
  at = WriteNumber(at, 2, id);
  WriteNumber(at, 3, ttl_s);
  return bytes;
}

Bytes EncodeLeaseTimeToLive(const ResponseHeader& header, int64_t id, int64_t ttl_s,
                            int64_t granted_ttl_s, std::span<const std::string_view> keys) {
  Builder builder;
  AppendHeader(&builder, header);
  builder.AppendNumber(2, id);
  builder.AppendNumber(3, ttl_s);
  builder.AppendNumber(4, granted_ttl_s);
  for (const std::string_view key : keys) builder.AppendElement(5, key);
  return builder.Take();
}

Bytes EncodeLeaseLeases(const ResponseHeader& header, std::span<const int64_t> ids) {
  Builder builder;
  AppendHeader(&builder, header);
  for (const int64_t id : ids) {
    const size_t size = NumberSize(id);
    WriteNumber(WriteMessageStart(builder.Extend(MessageSize(size)), 2, size), 1, id);
  }
  return builder.Take();
}

void AppendMember(Builder* builder, uint32_t field, const Member& member) {
  const size_t begin = builder->BeginMessage(field);
  builder->AppendNumber(1, member.id);
  builder->AppendText(2, member.name);
  for (const std::string& url : member.peer_urls) builder->AppendElement(3, url);
  for (const std::string& url : member.client_urls) builder->AppendElement(4, url);
  builder->AppendNumber(5, uint64_t{member.is_learner});
  builder->EndMessage(begin);
}

Bytes EncodeMemberList(const ResponseHeader& header, std::span<const Member> members) {
  Builder builder;
  AppendHeader(&builder, header);
  for (const Member& member : members) AppendMember(&builder, 2, member);
  return builder.Take();
}

Bytes EncodeMemberAdd(const ResponseHeader& header, const Member& added,
                      std::span<const Member> members) {
  Builder builder;
  AppendHeader(&builder, header);
  AppendMember(&builder, 2, added);
  for (const Member& member : members) AppendMember(&builder, 3, member);
  return builder.Take();
}

Bytes EncodeAlarm(const ResponseHeader& header, std::span<const AlarmMember> alarms) {
  Builder builder;
  AppendHeader(&builder, header);
  for (const AlarmMember& alarm : alarms) {
    const size_t begin = builder.BeginMessage(2);
    builder.AppendNumber(1, alarm.member_id);
    builder.AppendNumber(2, int64_t{alarm.alarm});
    builder.EndMessage(begin);
  }
  return builder.Take();
}

Bytes EncodeHash(const ResponseHeader& header, uint32_t hash) {
  Builder builder;
  AppendHeader(&builder, header);
  builder.AppendNumber(2, uint64_t{hash});
  return builder.Take();
}

Bytes EncodeDowngrade(const ResponseHeader& header, std::string_view version) {
  Builder builder;
  AppendHeader(&builder, header);
  builder.AppendText(2, version);
  return builder.Take();
}

Bytes EncodeHashKv(const ResponseHeader& header, uint32_t hash, int64_t compact_revision,
                   int64_t hash_revision) {
  Builder builder;
  AppendHeader(&builder, header);
  builder.AppendNumber(2, uint64_t{hash});
  builder.AppendNumber(3, compact_revision);
  builder.AppendNumber(4, hash_revision);
  return builder.Take();
}

Bytes EncodeStatus(const ResponseHeader& header, const Status& status) {
  Builder builder;
  AppendHeader(&builder, header);
  builder.AppendText(2, status.version);
  builder.AppendNumber(3, status.db_size);
  builder.AppendNumber(4, status.leader);
  builder.AppendNumber(5, status.raft_index);
  builder.AppendNumber(6, status.raft_term);
  builder.AppendNumber(7, status.raft_applied_index);
  for (const std::string& error : status.errors) builder.AppendElement(8, error);
  builder.AppendNumber(9, status.db_size_in_use);
  builder.AppendNumber(10, uint64_t{status.is_learner});
  builder.AppendText(11, status.storage_version);
  builder.AppendNumber(12, status.db_size_quota);
  const size_t begin = builder.BeginMessage(13);
  builder.AppendNumber(1, uint64_t{!status.downgrade_target.empty()});
  builder.AppendText(2, status.downgrade_target);
  builder.EndMessage(begin);
  return builder.Take();
}

void AppendWatchHead(Builder* builder, const WatchResponseHead& head) {
  AppendHeader(builder, head.header);
  builder->AppendNumber(2, head.watch_id);
  builder->AppendNumber(3, uint64_t{head.created});
  builder->AppendNumber(4, uint64_t{head.canceled});
  builder->AppendNumber(5, head.compact_revision);
  builder->AppendText(6, head.cancel_reason);
  builder->AppendNumber(7, uint64_t{head.fragment});
}

Bytes EncodeWatchHead(const WatchResponseHead& head) {
  Builder builder;
  AppendWatchHead(&builder, head);
  return builder.Take();
}

}  // namespace conclave::wire
